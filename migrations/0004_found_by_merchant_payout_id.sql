-- An operator asks by merchant_payout_id alone, of whichever merchant (`show`, `cancel`): the same key the other way
-- round answers that too, and costs a job nothing more.
--
-- Building it holds up writes. On a table that is large already, make it beforehand under the same name, CONCURRENTLY.
CREATE UNIQUE INDEX IF NOT EXISTS payout_links_by_merchant_payout_id ON payout_links (merchant_payout_id, merchant_id);
ALTER TABLE payout_links
    DROP CONSTRAINT payout_links_key,
    ADD CONSTRAINT payout_links_key UNIQUE USING INDEX payout_links_by_merchant_payout_id;
