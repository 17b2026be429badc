-- no-transaction
-- Finds the records with an error code (`list --error CONNECTOR_UNAVAILABLE`). Built without blocking writes. Only failed and
-- unknown records have one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_by_error_code ON payout_links (error_code, id)
    WHERE error_code IS NOT NULL;
