-- no-transaction
-- Finds the concluded records of a merchant (`list --merchant ID`). Built without blocking writes. A record enters it with its
-- conclusion, an update that writes every index in any case; an open record is found by the index of open records.
--
-- Every concluded record has a payout_status. The condition is not `state <> 'open'`: retention's statement has that, and a plan
-- that is made while the table is empty could read this index instead of its own.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_by_merchant ON payout_links (merchant_id, id)
    WHERE payout_status IS NOT NULL;
