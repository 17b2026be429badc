-- How many values each sealing key has encrypted, by its id in the configuration. Never a key itself. A key that has encrypted
-- 2^32 values is worn out (src/store/seal_count.rs).
--
-- Written once a minute by each worker. Earlier versions do not know the table and do not count.
CREATE TABLE sealing_keys (
    key_id     text PRIMARY KEY,
    seals      bigint NOT NULL CHECK (seals >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
);
