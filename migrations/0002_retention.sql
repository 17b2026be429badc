-- What retention needs beside the tables, and why it is one index and no more: every index is paid for by every job.
--
-- Requests: concluded records whose request is still there, the longest concluded first. It is partial, so a record is in it
-- from its conclusion (an update that is not HOT in any case) until its request is erased: its size follows the retention,
-- not history.
-- Events and attempts need none. Their leading keys are UUIDv7, in the order of time: those that are old are at one
-- end of events_pkey and of attempts_of_payout_link. A BRIN index on attempts.started_at would not do: new rows go
-- where deleted ones were, and its ranges never become narrower again.
--
-- Building it holds up writes. On a table that is large already, make it beforehand under the same name, CONCURRENTLY.
CREATE INDEX IF NOT EXISTS payout_links_request_kept ON payout_links (concluded_at)
    WHERE request IS NOT NULL AND state <> 'open';
