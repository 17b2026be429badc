-- no-transaction
-- Finds acts on letters of a payout that had no record yet, for its timeline. Built without blocking writes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS operator_actions_of_letters
    ON operator_actions ((details->>'merchant_id'), (details->>'merchant_payout_id')) WHERE payout_link_id IS NULL;
