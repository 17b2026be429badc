-- A webhook of the provider came while a worker asked about the link: the answer may be older, so the provider is asked
-- again after it. Added without reading the table. Earlier versions ignore it.
ALTER TABLE payout_links ADD COLUMN ask_again boolean NOT NULL DEFAULT false;
