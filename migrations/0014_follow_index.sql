-- no-transaction
-- Finds the links that are due to be asked about, the longest due first. Built without blocking writes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_follow_order ON payout_links (connector, follow_due_at)
    WHERE follow_due_at IS NOT NULL;
