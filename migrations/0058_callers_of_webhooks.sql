-- The same for the worker that delivered the webhook. A migration of its own: it holds no lock on another table while it waits.
ALTER TABLE events ADD COLUMN delivered_by uuid;
