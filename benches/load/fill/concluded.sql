-- Concludes all open records, each with an event to deliver.
WITH concluded AS (
    UPDATE payout_links SET
        state = 'created', payout_status = 'PAYOUT_REQUIRES_FULFILLMENT', connector_payout_id = 'plink_' || merchant_payout_id,
        result = substr(request, 1, 128), status_code = 201, took_ms = 12, due_at = NULL, holder = NULL,
        event_id = overlay(id::text PLACING '7bbb' FROM 15)::uuid, concluded_at = created_at
    WHERE state = 'open'
    RETURNING id, event_id
)
INSERT INTO events (id, payout_link_id, type, webhook_url, webhook_state, webhook_due_at, due_at, holder)
SELECT event_id, id, 'payout_link.created', 'http://127.0.0.1:9/webhooks', 'pending', now(), now(), event_id
FROM concluded
