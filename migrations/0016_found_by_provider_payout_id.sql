-- no-transaction
-- Finds a record by the provider's id of the payout that came of its link. Built without blocking writes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_by_provider_payout_id ON payout_links (provider_payout_id)
    WHERE provider_payout_id IS NOT NULL;
