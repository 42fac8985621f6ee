-- What submitters say about how a batch is run.
ALTER TABLE batches ADD COLUMN retry_rule TEXT;      -- when rows are tried again, as JSON; NULL for the default
ALTER TABLE batches ADD COLUMN start_at INTEGER;     -- no row is leased before
ALTER TABLE batches ADD COLUMN deferred INTEGER NOT NULL DEFAULT 0; -- its start lay ahead when a claim looked last
ALTER TABLE batches ADD COLUMN deadline_at INTEGER;  -- rows without an outcome are aborted then
ALTER TABLE batches ADD COLUMN failures_max INTEGER CONSTRAINT failures_are_not_negative CHECK (failures_max >= 0); -- more failed rows abort the batch
ALTER TABLE batches ADD COLUMN failures_percent INTEGER CONSTRAINT a_part_is_no_more_than_the_whole CHECK (failures_percent BETWEEN 0 AND 100); -- the same as a part of its rows

DROP INDEX batches_with_fresh_rows;
CREATE INDEX batches_with_fresh_rows ON batches (app, priority DESC, batch_key)
    WHERE step = 'rows' AND status IN ('queued', 'inprog') AND next_row <= row_count AND deferred = 0;
CREATE INDEX batches_deferred ON batches (start_at) WHERE deferred = 1 AND status = 'queued';
CREATE INDEX batches_with_a_deadline ON batches (deadline_at) WHERE deadline_at IS NOT NULL AND step = 'rows';
