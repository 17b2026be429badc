-- What the worker's role may do, and no more. The tables belong to another role, which migrates:
--
--   payout-link-worker migrate --config owner.toml         (as the owner, after every update)
--   psql -v worker=payout_links_worker -f postgres.sql payout_links
--
-- and `worker.migrate = false` in the worker's own configuration. The role itself is yours to make:
-- CREATE ROLE payout_links_worker LOGIN PASSWORD '…' CONNECTION LIMIT …

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO :"worker";

-- Records are never deleted, only what is secret in them.
GRANT SELECT, INSERT, UPDATE ON payout_links TO :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON events TO :"worker";
-- Append-only, and erased after their retention.
GRANT SELECT, INSERT, DELETE ON attempts TO :"worker";
-- Empty in normal operation: messages that came back several times while they were processed.
GRANT SELECT, INSERT, UPDATE, DELETE ON suspect_messages TO :"worker";
-- Deleted after an hour.
GRANT SELECT, INSERT, DELETE ON rejected_messages TO :"worker";
-- Deleted after a week.
GRANT SELECT, INSERT, DELETE ON provider_webhooks TO :"worker";
-- Deleted when they are answered.
GRANT SELECT, INSERT, UPDATE, DELETE ON link_requests TO :"worker";
-- Append-only: who did what with a command, and why. A trigger refuses changes, to the owner as well.
GRANT SELECT, INSERT ON operator_actions TO :"worker";
-- What operators have paused.
GRANT SELECT, INSERT, DELETE ON pauses TO :"worker";
-- Open circuit breakers of the workers that run.
GRANT SELECT, INSERT, DELETE ON open_breakers TO :"worker";
-- How much each sealing key has encrypted.
GRANT SELECT, INSERT, UPDATE ON sealing_keys TO :"worker";
-- Settings that records depend on.
GRANT SELECT, INSERT, UPDATE ON remembered_settings TO :"worker";
-- Hosts of merchants that operators paused.
GRANT SELECT, INSERT, DELETE ON paused_webhook_hosts TO :"worker";
