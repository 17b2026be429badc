-- Workers claim the answers to link requests as they claim events: a claim pushes due_at past a lease.

ALTER TABLE link_requests
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
    -- The provider is asked before the answer.
    ADD COLUMN refresh boolean NOT NULL DEFAULT false;
