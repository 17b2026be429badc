-- Reads the table once, without blocking writes.
ALTER TABLE attempts VALIDATE CONSTRAINT attempts_kind_check;
