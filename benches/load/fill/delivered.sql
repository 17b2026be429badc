-- Delivers all events, or publishes them and leaves webhooks whose next attempt is an hour away.
UPDATE events SET
    published_at = now(), webhook_attempts = 1, holder = NULL,
    webhook_state = CASE WHEN $1 THEN 'pending' ELSE 'delivered' END,
    webhook_due_at = CASE WHEN $1 THEN now() + interval '1 hour' END,
    due_at = CASE WHEN $1 THEN now() + interval '1 hour' END,
    posted_at = CASE WHEN NOT $1 THEN now() END,
    took_ms = CASE WHEN NOT $1 THEN 3 END,
    status_code = CASE WHEN NOT $1 THEN 200 END
WHERE published_at IS NULL AND due_at IS NOT NULL
