-- A first call that made the link, and a first post that was taken, are told by the two rows that are written anyway:
-- most jobs leave no line among the attempts. NULL: the attempts tell it.

ALTER TABLE payout_links ADD COLUMN took_ms integer;

ALTER TABLE events
    ADD COLUMN posted_at   timestamptz,
    ADD COLUMN took_ms     integer,
    ADD COLUMN status_code integer;
