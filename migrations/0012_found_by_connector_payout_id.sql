-- no-transaction
-- Lets `show` find a record by the link's id at the provider. Built without blocking writes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_by_connector_payout_id ON payout_links (connector_payout_id)
    WHERE connector_payout_id IS NOT NULL;
