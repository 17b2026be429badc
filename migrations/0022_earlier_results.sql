-- no-transaction
-- Finds the events with results of their own: few. Built without blocking writes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_earlier_results ON events (payout_link_id) WHERE earlier_result IS NOT NULL;
