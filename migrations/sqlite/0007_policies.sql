-- What operators say about the work of an app, or of one of its operations.
CREATE TABLE policies (
    app TEXT NOT NULL,
    op TEXT NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)), -- an operation, or nothing for all of the app
    paused INTEGER NOT NULL DEFAULT 0,        -- nothing of it is leased
    rate_micros INTEGER CONSTRAINT a_rate_is_more_than_nothing CHECK (rate_micros > 0), -- so many millionths of rows are leased per second; NULL for no limit
    burst INTEGER CONSTRAINT a_burst_is_a_row_at_least CHECK (burst > 0), -- so many rows may be leased at once after a while without work
    tokens INTEGER,                           -- billionths of rows that could be leased at refilled_at; moved by claims
    refilled_at INTEGER,                      -- when tokens was counted
    terms TEXT,                               -- the terms of batches that say nothing else, as JSON
    PRIMARY KEY (app, op),
    CONSTRAINT a_rate_is_whole CHECK ((rate_micros IS NULL) = (burst IS NULL) AND (rate_micros IS NULL) = (tokens IS NULL) AND (rate_micros IS NULL) = (refilled_at IS NULL))
) STRICT, WITHOUT ROWID;

-- Claims jump from operation to operation.
DROP INDEX batches_with_fresh_rows;
CREATE INDEX batches_with_fresh_rows ON batches (kind, app, op, priority DESC, batch_key)
    WHERE step = 'rows' AND status IN ('queued', 'inprog') AND next_row <= row_count AND deferred = 0;
