-- no-transaction
-- Finds the concluded records of a merchant (`list --merchant ID`). Built without blocking writes. A record enters it with its
-- conclusion, an update that writes every index in any case; an open record is found by the index of open records.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_by_merchant ON payout_links (merchant_id, id)
    WHERE state <> 'open';
