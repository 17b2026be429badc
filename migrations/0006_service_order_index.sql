-- no-transaction
-- The sweeper's way in, in the order of service. Built without blocking writes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_service_order ON payout_links (connector, service_rank, due_at)
    WHERE state = 'open';
