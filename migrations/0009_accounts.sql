-- Which account at a provider a record was called in, and what workers remember of their configuration. Each column is
-- added without reading the table; earlier versions ignore it.

ALTER TABLE payout_links
    -- A digest of the provider's URL and the account's identity (src/domain/account.rs), written with the call. NULL where
    -- no call was begun, or an earlier version began it.
    ADD COLUMN account text;

-- Settings that may not change, or not unnoticed, while there are records: see src/store/remembered.rs. One row each.
CREATE TABLE remembered_settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);
