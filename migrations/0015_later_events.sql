-- no-transaction
-- Finds the later events of a record, and keeps their numbers apart. A record without later events is not in it. Built
-- without blocking writes.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS events_later ON events (payout_link_id, sequence) WHERE sequence > 1;
