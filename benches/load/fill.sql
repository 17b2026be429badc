-- Concluded records, with their events: all of them told, or with a webhook whose next try is an hour away.
WITH made AS (
    INSERT INTO payout_links (
        id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency,
        destination_currency, state, payout_status, connector_payout_id, result, status_code, attempts,
        first_called_at, last_called_at, event_id, took_ms, created_at, concluded_at
    )
    SELECT
        gen_random_uuid(), '', 'past-' || n, sha256(n::text::bytea), 'sandbox', 1000, 'EUR', 'EUR', 'created',
        'PAYOUT_REQUIRES_FULFILLMENT', 'plink_' || n, decode(repeat(md5(n::text), 25), 'hex'), 201, 1, at, at,
        gen_random_uuid(), 12, at, at
    FROM generate_series($1::bigint, $2::bigint) n, LATERAL (SELECT now() - n * interval '10 ms' AS at) moment
    RETURNING id, event_id
)
INSERT INTO events (
    id, payout_link_id, type, published_at, webhook_url, webhook_state, webhook_attempts, webhook_due_at, due_at
)
SELECT
    event_id, id, 'payout_link.created', now(), 'http://127.0.0.1:9/webhooks',
    CASE WHEN $3 THEN 'pending' ELSE 'delivered' END, 1,
    CASE WHEN $3 THEN now() + interval '1 hour' END, CASE WHEN $3 THEN now() + interval '1 hour' END
FROM made
