-- no-transaction
-- Finds leases that an earlier version's claim began: it leaves the rank of a waiting record. This version moves each record that
-- it claims to a rank of unknown outcomes, so the index is empty once no earlier version runs. Built without blocking writes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_leases_of_earlier_claims
    ON payout_links (connector, service_rank, due_at)
    WHERE state = 'open' AND holder IS NOT NULL AND service_rank > 2;
