-- What becomes of a link after it was created. Each column is added without reading the table, and earlier versions ignore
-- it. An earlier version that finds an event of a later type sets it aside for five minutes.

ALTER TABLE payout_links
    -- The status of a created link, as it was announced last (src/domain/follow/status.rs). NULL: the link was created by
    -- an earlier version, and nobody asks about it before its provider sends a webhook.
    ADD COLUMN link_status text,
    -- The provider's own word, and the provider's id of the payout or transaction that came of the link.
    ADD COLUMN provider_status text,
    ADD COLUMN provider_payout_id text,
    -- Why the payout failed: JSON of the provider's error, without secrets.
    ADD COLUMN status_error text,
    ADD COLUMN status_changed_at timestamptz,
    -- The end of the link, as the provider said it last.
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN expiring_announced boolean NOT NULL DEFAULT false,
    -- The event of the newest status, and its values: duplicates of the job are answered with them. event_id stays the
    -- event of the conclusion. NULL: there is no later event.
    ADD COLUMN newest_event_id uuid,
    ADD COLUMN newest_event_type text,
    ADD COLUMN occurred_at timestamptz,
    ADD COLUMN sequence integer NOT NULL DEFAULT 1,
    -- When the provider is asked next; NULL: not any more. A claim pushes it past a lease, as with due_at.
    ADD COLUMN follow_due_at timestamptz,
    ADD COLUMN follow_holder uuid,
    ADD COLUMN asked_at timestamptz,
    -- Questions without an answer since the last one.
    ADD COLUMN follow_failures integer NOT NULL DEFAULT 0,
    -- A request to take the link back; when a worker began to cancel it at the provider, and why.
    ADD COLUMN cancel_requested_at timestamptz,
    ADD COLUMN cancelled_at timestamptz,
    ADD COLUMN cancelled_because text,
    ADD CONSTRAINT a_followed_link_was_created CHECK (follow_due_at IS NULL OR state = 'created') NOT VALID,
    ADD CONSTRAINT link_status_is_known CHECK (link_status IN (
        'unclaimed', 'claimed', 'processing', 'succeeded', 'payout_failed', 'expired', 'cancelled', 'reversed'
    )) NOT VALID,
    ADD CONSTRAINT a_cancel_has_a_reason
        CHECK ((cancelled_at IS NULL) = (cancelled_because IS NULL) AND cancelled_because IN ('expiry', 'request')) NOT VALID;

ALTER TABLE events
    -- 1 for the event of the conclusion, then without gaps. Webhooks of one record are delivered in this order.
    ADD COLUMN sequence integer NOT NULL DEFAULT 1,
    -- The values that differ from the result of the conclusion; NULL in its own event. The name differs from the column of
    -- payout_links, because an earlier version joins both tables without qualifying it.
    ADD COLUMN new_payout_status text,
    ADD COLUMN occurred_at timestamptz,
    ADD COLUMN error text,
    ADD COLUMN previous_event_id uuid,
    ADD COLUMN next_event_id uuid,
    -- The webhook waits for the webhook of the previous event.
    ADD COLUMN webhook_waits boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT a_later_event_follows_another CHECK ((sequence > 1) = (previous_event_id IS NOT NULL)) NOT VALID;

-- Webhooks of providers that were authenticated, each once. Retention deletes them after some days.
CREATE TABLE provider_webhooks (
    -- The connector's name in the configuration.
    connector   text NOT NULL,
    -- SHA-256 of the provider's id of the webhook.
    digest      bytea NOT NULL,
    event_type  text NOT NULL,
    -- NULL: the account's webhook is about a link that is not ours.
    payout_link_id uuid,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connector, digest)
);

CREATE INDEX provider_webhooks_by_age ON provider_webhooks (received_at);

-- Messages that cancel a link or ask for its status and wait for their answer.
CREATE TABLE link_requests (
    -- UUIDv7: message_id of the answer.
    id             uuid PRIMARY KEY,
    payout_link_id uuid NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('cancel', 'status')),
    reason         text,
    reply_to       text,
    correlation_id text,
    traceparent    text,
    tracestate     text,
    requested_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX link_requests_of_payout_link ON link_requests (payout_link_id);
