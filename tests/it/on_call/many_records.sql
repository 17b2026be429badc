-- Inserts records number $1 to $2 of $3, three seconds apart and the last one now, as workers would have left them
-- after several months. Most are created; a part of the last thousandth is open. These are rare: the merchant m_rare,
-- the connector "rare", CONNECTOR_UNAVAILABLE, the link statuses payout_failed and reversed, and the state unknown.
-- Nothing is due for a worker: open records of "sandbox" are due in minutes, and overdue records belong to an account
-- that no worker has.
WITH made AS (
    SELECT
        n, hash, at,
        (lpad(to_hex(ms), 12, '0') || '8' || substr(hash, 1, 3) || 'a' || substr(hash, 4, 15))::uuid AS id,
        (lpad(to_hex(ms + 300), 12, '0') || '7' || substr(hash, 8, 3) || 'a' || substr(hash, 11, 15))::uuid AS event_id,
        CASE
            WHEN n % 1000 = 7 THEN 'unknown'
            WHEN n > $3 - $3 / 50 AND n % 2 = 0 THEN 'open'
            WHEN n % 20 = 3 THEN 'failed'
            ELSE 'created'
        END AS state
    FROM generate_series($1::bigint, $2::bigint) AS n
    CROSS JOIN LATERAL (
        SELECT (extract(epoch FROM now()) * 1000)::bigint - ($3::bigint - n) * 3000 AS ms, md5(n::text) AS hash
    ) AS times
    CROSS JOIN LATERAL (SELECT to_timestamp(ms / 1000.0) AS at) AS time
), records AS (
    INSERT INTO payout_links (
        id, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency, destination_currency,
        state, payout_status, connector_payout_id, result, status_code, error_code, attempts, first_called_at,
        last_called_at, in_doubt_since, due_at, event_id, created_at, concluded_at, service_rank, took_ms, link_status,
        expires_at
    )
    SELECT
        id,
        CASE WHEN n % 1000000 = 11 THEN 'm_rare' WHEN n % 5 > 2 THEN 'm_big' ELSE 'm_' || n % 1999 END,
        'po_' || n, '\x00',
        CASE WHEN n % 100000 = 13 THEN 'rare' WHEN state = 'open' AND n % 10 = 4 THEN 'gone' ELSE 'sandbox' END,
        100 + n % 100000, currency, currency, state,
        CASE state WHEN 'created' THEN 'REQUIRES_FULFILLMENT' WHEN 'failed' THEN 'FAILED' WHEN 'unknown' THEN 'PENDING' END,
        CASE state WHEN 'created' THEN 'plink_' || n END,
        CASE WHEN state <> 'open' THEN decode(hash || hash || hash, 'hex') END,
        CASE state WHEN 'created' THEN 200 ELSE 0 END,
        CASE
            WHEN state = 'failed' AND n % 10000 = 23 THEN 'CONNECTOR_UNAVAILABLE'
            WHEN state = 'failed' THEN 'CONNECTOR_REJECTED'
            WHEN state = 'unknown' THEN 'OUTCOME_UNKNOWN'
        END,
        CASE WHEN state = 'open' AND n % 4 = 0 THEN 0 ELSE 1 END, at, at,
        CASE WHEN state = 'unknown' OR state = 'open' AND n % 100 = 2 THEN at END,
        CASE WHEN state = 'open' THEN now() + CASE WHEN n % 10 = 4 THEN -10 ELSE 30 END * interval '1 minute' END,
        CASE WHEN state <> 'open' THEN event_id END, at, CASE WHEN state <> 'open' THEN at + interval '0.3 second' END,
        CASE WHEN state = 'open' AND n % 4 = 0 THEN 8 ELSE 5 END,
        CASE state WHEN 'created' THEN 250 END,
        CASE
            WHEN state <> 'created' THEN NULL
            WHEN n % 50000 = 1 THEN 'payout_failed'
            WHEN n % 50000 = 2 THEN 'reversed'
            WHEN n % 10 = 4 THEN 'expired'
            WHEN n > $3 - $3 / 100 THEN 'unclaimed'
            ELSE 'succeeded'
        END,
        at + interval '7 days'
    FROM made CROSS JOIN LATERAL (SELECT CASE WHEN n % 3 = 0 THEN 'IDR' ELSE 'EUR' END AS currency) AS money
    RETURNING id, event_id, state, created_at
)
INSERT INTO events (
    id, payout_link_id, type, published_at, webhook_url, webhook_state, webhook_attempts, posted_at, took_ms, status_code
)
SELECT event_id, id, 'payout_link.' || state, created_at, 'https://merchant.example/webhooks', 'delivered', 1, created_at, 90, 200
FROM records WHERE state <> 'open'
