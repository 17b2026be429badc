-- no-transaction
-- Finds webhooks that were abandoned, however old their events are (`status`, `webhooks list`). Built without blocking writes.
-- Few events are in it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_abandoned ON events (id) WHERE webhook_state = 'abandoned';
