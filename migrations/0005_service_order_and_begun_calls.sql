-- Columns for the order of service, for calls that were not begun, for fresh secrets of a duplicate, and for replies
-- that a queue refuses. Each is added without reading the table; earlier versions ignore them.

ALTER TABLE payout_links
    -- Which due record is served first, per connector: see `service_rank` in src/domain/order.rs. The default is that
    -- of a retry without a priority, for rows that an earlier version wrote.
    ADD COLUMN service_rank smallint NOT NULL DEFAULT 5,
    -- The claim under which no call was begun. Where it equals `holder`, an expired lease leaves no doubt. An earlier
    -- version that claims the row writes another `holder`, so its calls are never overlooked.
    ADD COLUMN uncalled_holder uuid,
    -- The webhook URL of a later duplicate, where it differs from the one in the request.
    ADD COLUMN fresh_webhook_url text,
    -- When a duplicate brought a fresh access token, browser information or webhook URL.
    ADD COLUMN refreshed_at timestamptz;

ALTER TABLE events
    -- Publications that failed: the pause before the next one grows with them.
    ADD COLUMN publish_attempts integer NOT NULL DEFAULT 0,
    -- The result is on the results exchange, and the requester's queue has refused it so far.
    ADD COLUMN reply_due boolean NOT NULL DEFAULT false;

-- The same rule with replies in it. An earlier version that finishes such an event drops the reply, and may do so.
ALTER TABLE events
    DROP CONSTRAINT what_is_not_told_is_due,
    ADD CONSTRAINT an_undelivered_event_is_due
        CHECK (due_at IS NOT NULL OR (published_at IS NOT NULL AND webhook_state <> 'pending')) NOT VALID,
    ADD CONSTRAINT a_delivered_event_is_not_due
        CHECK (due_at IS NULL OR published_at IS NULL OR webhook_state = 'pending' OR reply_due) NOT VALID;

-- Messages that came back several times: how often processing one began and did not end. Empty in normal operation.
CREATE TABLE suspect_messages (
    -- SHA-256 of what identifies the message; nothing of its content.
    digest        bytea PRIMARY KEY,
    begun         integer NOT NULL,
    last_begun_at timestamptz NOT NULL DEFAULT now()
);

-- Rejections that another configuration would not repeat, until their messages are settled for certain: a message that
-- comes again is rejected again, by whichever worker. A row is deleted with the first rejection that is noted an hour later.
CREATE TABLE rejected_messages (
    digest      bytea PRIMARY KEY,
    code        text NOT NULL,
    message     text NOT NULL,
    field       text,
    rejected_at timestamptz NOT NULL DEFAULT now()
);
