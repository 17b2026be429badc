-- Which worker made each call, and that a job was received again: for the timeline. Each column is added without reading the table.

-- The claim under which the call was made, which has the worker's number. NULL: an earlier version wrote the row. Earlier versions
-- ignore the columns.
ALTER TABLE payout_links ADD COLUMN concluded_by uuid;
ALTER TABLE events ADD COLUMN delivered_by uuid;
ALTER TABLE attempts
    ADD COLUMN caller uuid,
    DROP CONSTRAINT attempts_kind_check,
    -- A duplicate is no call. Earlier versions print it as its columns say.
    ADD CONSTRAINT attempts_kind_check CHECK (kind IN ('create', 'look_up', 'post', 'duplicate')) NOT VALID;
