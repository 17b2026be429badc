-- no-transaction
-- Finds the provider's webhooks about a record's link (`show`). Built without blocking writes. A job writes nothing to it; a
-- provider's webhook does, once.
CREATE INDEX CONCURRENTLY IF NOT EXISTS provider_webhooks_of_payout_link ON provider_webhooks (payout_link_id)
    WHERE payout_link_id IS NOT NULL;
