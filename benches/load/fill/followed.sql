-- Inserts created links from $1 to $2, of the last days, that nobody has claimed. Each is due within the next hour.
INSERT INTO payout_links (
    id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency, destination_currency,
    state, attempts, first_called_at, last_called_at, created_at, concluded_at, payout_status, connector_payout_id, result,
    status_code, took_ms, event_id, link_status, follow_due_at
)
SELECT
    (stamp || '7aaa8' || substr(random, 1, 15))::uuid, '', 'past-' || n, sha256(n::text::bytea), 'sandbox', 1000, 'EUR', 'EUR',
    'created', 1, at, at, at, at, 'REQUIRES_FULFILLMENT', 'past_' || n, decode(repeat(random, 16), 'hex'),
    201, 12, (stamp || '7bbb8' || substr(random, 1, 15))::uuid, 'unclaimed', now() + random() * interval '1 hour'
FROM
    generate_series($1::bigint, $2::bigint) n,
    LATERAL (SELECT now() - interval '2 days' - (1000000 - n) * interval '100 ms' AS at) moment,
    LATERAL (SELECT md5(n::text) AS random, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS stamp) parts
