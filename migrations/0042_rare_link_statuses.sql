-- no-transaction
-- Finds the links that came to a rare end (`list --link reversed`). Built without blocking writes. Few links ever enter it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payout_links_by_rare_link_status ON payout_links (link_status, id)
    WHERE link_status IN ('payout_failed', 'cancelled', 'reversed');
