-- When an operator erased a person's data in the record: the request, and the link and the provider's texts in its results.
-- Added without reading the table. Earlier versions ignore it.
ALTER TABLE payout_links ADD COLUMN erased_at timestamptz;
