-- Turns of merchants for events that wait to be delivered again: one merchant's million webhooks do not delay another's ten. Each
-- column is added without reading the table. An earlier version ignores them, and finds every due event by its time.

ALTER TABLE events
    -- Priority and merchant of the record, written once the event waits. NULL: it waits for nothing, or an earlier version wrote
    -- it. The names differ from the columns of payout_links, because an earlier version joins both tables without qualifying them.
    ADD COLUMN turn_priority smallint,
    ADD COLUMN turn_merchant_id text;
