-- What the batches of an app may hold, as JSON, as far as it was given something.
ALTER TABLE apps ADD COLUMN quota TEXT;
ALTER TABLE batches ADD COLUMN log_bytes INTEGER NOT NULL DEFAULT 0;    -- of the logs of its rows; moved in the transaction that appends the outcomes
ALTER TABLE batches ADD COLUMN logs_dropped INTEGER NOT NULL DEFAULT 0; -- rows whose log did not fit; the same
ALTER TABLE batches ADD COLUMN file_bytes INTEGER NOT NULL DEFAULT 0;   -- of the pieces of its rows for output files; the same

-- Rows that an app may have queued are counted from its batches that have not ended; but not at each submission: what stands here is never less than the count.
CREATE TABLE queues (
    app TEXT PRIMARY KEY,
    counted INTEGER NOT NULL,                 -- what was counted last
    rows INTEGER NOT NULL                     -- that, and what came in since; rows that end do not move it
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_open ON batches (app) WHERE step = 'rows';
