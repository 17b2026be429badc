-- Which worker made the call that created the link, for the timeline: the claim under which it was made has the worker's number.
-- Added without reading the table. NULL: an earlier version wrote the row. Earlier versions ignore the column.
ALTER TABLE payout_links ADD COLUMN concluded_by uuid;
