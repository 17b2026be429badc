-- Reads the table once, without blocking writes.
ALTER TABLE events VALIDATE CONSTRAINT an_undelivered_event_is_due;
ALTER TABLE events VALIDATE CONSTRAINT a_delivered_event_is_not_due;
