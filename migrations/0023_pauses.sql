-- What operators have paused: every worker reads it each second. Earlier versions do not know the table and do not pause.
CREATE TABLE pauses (
    kind      text NOT NULL CHECK (kind IN ('consumption', 'account', 'merchant')),
    -- The connector account or the merchant; '' for consumption, and for jobs without a merchant.
    name      text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    actor     text NOT NULL,
    reason    text NOT NULL,
    PRIMARY KEY (kind, name)
);
