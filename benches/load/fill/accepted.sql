-- Inserts accepted records, in the first of the worker's three steps: accepted, concluded, delivered. A table that
-- grows this way has free space in its pages where the first versions of rows were, as in production. Ids are in the
-- order of time, as the worker's are.
INSERT INTO payout_links (
    id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency, destination_currency,
    request, state, attempts, first_called_at, last_called_at, due_at, holder, created_at
)
SELECT
    (stamp || '7aaa8' || substr(random, 1, 15))::uuid, '', 'past-' || n, sha256(n::text::bytea), 'sandbox', 1000, 'EUR', 'EUR',
    decode(repeat(random, 14), 'hex'), 'open', 1, at, at, at + interval '1 minute', random::uuid, at
FROM
    generate_series($1::bigint, $2::bigint) n,
    LATERAL (SELECT now() - (20000000 - n) * interval '5 ms' AS at) moment,
    LATERAL (SELECT md5(n::text) AS random, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS stamp) parts
