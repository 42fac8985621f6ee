-- Failed rows of an app are listed: of its batches that have some, the newest first.

-- Batches of which a row ever failed. failure_at moves once a second at most.
CREATE INDEX batches_with_failures ON batches (app, batch_key) WHERE failure_at IS NOT NULL;
-- A row that succeeded costs it nothing but a look at the condition.
CREATE INDEX outcomes_failed ON outcomes (batch_key, row_no) WHERE failed = 1;
-- Those that failed before there was anything to tell of.
UPDATE batches SET failure_at = coalesce(finished_at, started_at, submitted_at) WHERE failed > 0 AND failure_at IS NULL;
