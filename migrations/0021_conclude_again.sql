-- An operator can resolve an unknown record, and have a failed one tried again. Then the record is concluded again: its next
-- event is the one of the new conclusion. Each column is added without reading the table, and earlier versions ignore it.

ALTER TABLE payout_links
    -- When the record was tried again last. The limits of its retries count from here.
    ADD COLUMN retried_at timestamptz,
    -- `create` attempts before that.
    ADD COLUMN attempts_before integer NOT NULL DEFAULT 0,
    -- The event whose result reply_to waits for: the one of the first conclusion, or of the one after a retry.
    ADD COLUMN reply_sequence integer NOT NULL DEFAULT 1;

ALTER TABLE events
    -- The result of a conclusion that another one followed, encrypted as payout_links.result was: the event keeps its content.
    -- NULL: the result is in payout_links. The name differs from that column, because an earlier version joins both tables
    -- without qualifying it.
    ADD COLUMN earlier_result bytea;
