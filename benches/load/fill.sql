-- Concluded records, with their events: all of them told, or with a webhook whose next try is an hour away. Their ids are
-- in the order of time, as the worker's own are.
WITH made AS (
    INSERT INTO payout_links (
        id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency,
        destination_currency, state, payout_status, connector_payout_id, result, status_code, attempts,
        first_called_at, last_called_at, event_id, took_ms, created_at, concluded_at
    )
    SELECT
        (stamp || '7aaa8' || substr(random, 1, 15))::uuid, '', 'past-' || n, sha256(n::text::bytea), 'sandbox', 1000,
        'EUR', 'EUR', 'created', 'PAYOUT_REQUIRES_FULFILLMENT', 'plink_' || n, decode(repeat(random, 25), 'hex'), 201, 1,
        at, at, (stamp || '7bbb8' || substr(random, 16, 15))::uuid, 12, at, at
    FROM
        generate_series($1::bigint, $2::bigint) n,
        LATERAL (SELECT now() - (20000000 - n) * interval '5 ms' AS at) moment,
        LATERAL (SELECT md5(n::text) AS random, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS stamp) parts
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
