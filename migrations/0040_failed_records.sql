-- no-transaction
-- Finds the failed and the unknown records, the newest or the oldest first (`list --state failed`). Built without blocking
-- writes. A record enters it with its conclusion; one that was created is never in it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_failed ON payout_links (state, id)
    WHERE state IN ('failed', 'unknown');
