-- no-transaction
-- Finds the records that wait, by merchant: parked jobs, retries and unknown outcomes without a holder. A claim takes from each
-- merchant in turn and never reads what a paused merchant has. Built without blocking writes.
--
-- A job that calls its provider at once has a holder for as long as it is open: it never enters this index. Bytes order the
-- merchants, so no other index serves the search for the next merchant, and no plan can read the concluded records for it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_waiting
    ON payout_links (connector, service_rank, merchant_id COLLATE "C", due_at)
    WHERE state = 'open' AND holder IS NULL;
