-- When a result that a queue refused is published again. An event comes due for its webhook as well, and that is no reason to
-- publish before. NULL: at once, as rows of earlier versions have it; these ignore the column.
ALTER TABLE events ADD COLUMN publish_due_at timestamptz;
