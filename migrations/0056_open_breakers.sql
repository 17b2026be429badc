-- Open circuit breakers, for `status`. Each worker writes its own. Rows of workers that are gone are ignored, and deleted by the
-- next worker that writes. Earlier versions do not know the table.
CREATE TABLE open_breakers (
    -- The key of the worker's advisory lock, as pg_locks shows it.
    worker    bigint NOT NULL,
    connector text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (worker, connector)
);
