-- The record, the outbox and the timeline.
--
-- Whatever still needs something carries a due_at. Taking it pushes due_at past a lease and writes a new holder;
-- dying means doing nothing: it comes due again. Only this database's clock decides leases.

CREATE TABLE payout_links (
    id                   uuid PRIMARY KEY,
    -- Who asked: whose merchant_payout_id it is. '' where the job named no merchant.
    merchant_id          text NOT NULL,
    merchant_payout_id   text NOT NULL,
    -- HMAC of the decoded request: tells a repeat from a conflict, and cannot be guessed against without the key.
    request_fingerprint  bytea NOT NULL,
    connector            text NOT NULL,
    amount_minor         bigint NOT NULL CHECK (amount_minor > 0),
    currency             text NOT NULL,
    destination_currency text NOT NULL,
    state                text NOT NULL CHECK (state IN ('open', 'created', 'failed', 'unknown')),
    payout_status        text,
    connector_payout_id  text,
    -- Sealed (see src/store/seal.rs). NULL once its retention is over.
    request              bytea,
    -- Sealed: the result as it is published, link and all. What a replay tells again.
    result               bytea,
    -- HTTP status of the connector's last answer, 0 where there was none.
    status_code          integer NOT NULL DEFAULT 0,
    error_code           text,
    -- Calls begun, this one included: written before the call it stands for.
    attempts             integer NOT NULL DEFAULT 0,
    first_called_at      timestamptz,
    last_called_at       timestamptz,
    -- Since when a call may have been carried out without our knowing. Only a link or a reliable look-up clears it.
    in_doubt_since       timestamptz,
    due_at               timestamptz,
    holder               uuid,
    reply_to             text,
    correlation_id       text,
    traceparent          text,
    tracestate           text,
    event_id             uuid,
    created_at           timestamptz NOT NULL DEFAULT now(),
    concluded_at         timestamptz,
    CONSTRAINT payout_links_key UNIQUE (merchant_id, merchant_payout_id),
    CONSTRAINT open_is_due CHECK ((state = 'open') = (due_at IS NOT NULL)),
    CONSTRAINT concluded_is_told
        CHECK (state = 'open' OR (result IS NOT NULL AND event_id IS NOT NULL AND concluded_at IS NOT NULL AND holder IS NULL)),
    CONSTRAINT created_is_at_the_connector CHECK (state <> 'created' OR connector_payout_id IS NOT NULL)
);

-- The sweeper's way in, one connector at a time: its cost follows what is open, not what was ever done.
CREATE INDEX payout_links_due ON payout_links (connector, due_at) WHERE state = 'open';

-- What has to be told of a payout link: its result published, its webhook posted. No foreign key: an event is
-- inserted in the statement that concludes its payout link, and a check would lock that row once more.
CREATE TABLE events (
    -- UUIDv7: the result's message_id and the webhook-id, the same in every repeat. Its time is the event's time.
    id               uuid PRIMARY KEY,
    payout_link_id   uuid NOT NULL,
    type             text NOT NULL,
    published_at     timestamptz,
    webhook_url      text,
    webhook_state    text NOT NULL CHECK (webhook_state IN ('none', 'pending', 'delivered', 'abandoned')),
    webhook_attempts integer NOT NULL DEFAULT 0,
    -- The schedule's next try: publishing may come due before it.
    webhook_due_at   timestamptz,
    -- NULL once there is nothing left to tell.
    due_at           timestamptz,
    holder           uuid,
    CONSTRAINT what_is_not_told_is_due
        CHECK ((published_at IS NOT NULL AND webhook_state <> 'pending') = (due_at IS NULL)),
    CONSTRAINT a_webhook_has_a_url CHECK ((webhook_url IS NULL) = (webhook_state = 'none')),
    CONSTRAINT a_pending_webhook_is_due CHECK ((webhook_due_at IS NOT NULL) = (webhook_state = 'pending'))
);

CREATE INDEX events_due ON events (due_at) WHERE due_at IS NOT NULL;

-- What happened at every call to a connector or a merchant: what an operator reads. Append-only, written together
-- with what the call led to. A number may stand twice where a holder's answer came after its lease.
CREATE TABLE attempts (
    payout_link_id uuid NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('create', 'look_up', 'post')),
    number         integer NOT NULL,
    started_at     timestamptz NOT NULL,
    took_ms        integer NOT NULL,
    status_code    integer NOT NULL,
    outcome        text NOT NULL,
    -- What went wrong, or the connector's id of what it made. Short, and free of secrets.
    detail         text
);

CREATE INDEX attempts_of_payout_link ON attempts (payout_link_id);

-- Open rows and due events come and go by the thousand: vacuum by a hundredth, not a fifth, of a table that only grows.
ALTER TABLE payout_links SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05);
