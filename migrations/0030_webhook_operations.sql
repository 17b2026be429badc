-- What operators do with webhooks. Added without reading the table.

-- Attempts before the last redelivery: the schedule begins anew after them, and their numbers go on. An earlier version that
-- delivers such a webhook makes one attempt and abandons it.
ALTER TABLE events ADD COLUMN redelivered_after integer NOT NULL DEFAULT 0;

-- Hosts of merchants to which no webhook is sent now. Workers read it every two seconds. An earlier version does not know it.
CREATE TABLE paused_webhook_hosts (
    host      text PRIMARY KEY CHECK (host <> ''),
    paused_at timestamptz NOT NULL DEFAULT now(),
    actor     text NOT NULL,
    reason    text NOT NULL
);
