-- What operators did with commands, and why. Each row is written in the transaction of its act. Earlier versions do not know the
-- table.
CREATE TABLE operator_actions (
    -- UUIDv7: in the order of time.
    id             uuid PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT now(),
    -- The person or the program that acted, as it named itself.
    actor          text NOT NULL CHECK (actor <> ''),
    reason         text NOT NULL CHECK (reason <> ''),
    -- The command, such as 'resolve'.
    command        text NOT NULL,
    -- NULL: the act is about no single record.
    payout_link_id uuid,
    -- Arguments and effect, without secrets.
    details        jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX operator_actions_of_payout_link ON operator_actions (payout_link_id) WHERE payout_link_id IS NOT NULL;

-- Append-only, for the owner as well. Only the owner of the table can drop the trigger.
CREATE FUNCTION operator_actions_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'operator_actions is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER operator_actions_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION operator_actions_are_append_only();
ALTER TABLE operator_actions ENABLE ALWAYS TRIGGER operator_actions_are_append_only;
