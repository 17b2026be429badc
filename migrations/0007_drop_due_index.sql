-- no-transaction
-- The index before it. Earlier versions find due records by the new one, too.
DROP INDEX CONCURRENTLY IF EXISTS payout_links_due;
