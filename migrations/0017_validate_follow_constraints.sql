-- Reads the tables once, without blocking writes.
ALTER TABLE payout_links VALIDATE CONSTRAINT a_followed_link_was_created;
ALTER TABLE payout_links VALIDATE CONSTRAINT link_status_is_known;
ALTER TABLE payout_links VALIDATE CONSTRAINT a_cancel_has_a_reason;
ALTER TABLE events VALIDATE CONSTRAINT a_later_event_follows_another;
