-- no-transaction
-- Finds the merchants with waiting events, and each one's oldest. Built without blocking writes. An event that is delivered at
-- once never enters it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_turns ON events (turn_priority, turn_merchant_id COLLATE "C", due_at)
    WHERE due_at IS NOT NULL AND turn_merchant_id IS NOT NULL;
