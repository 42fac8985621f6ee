-- Times are milliseconds since 1970-01-01T00:00:00Z. Rows of a batch are numbered densely from 1, in the order in which they came in.

CREATE TABLE batches (
    batch_key INTEGER PRIMARY KEY,
    batch_id TEXT NOT NULL UNIQUE,            -- a UUIDv7, the batch's name outside
    app TEXT NOT NULL,
    op TEXT NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)),
    kind TEXT NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('batch', 'slow_query')),
    processor_version INTEGER NOT NULL,
    processor_digest TEXT NOT NULL,           -- SHA-256 of the component
    context TEXT NOT NULL,                    -- JSON
    attempts_max INTEGER NOT NULL CONSTRAINT at_least_one_attempt CHECK (attempts_max >= 1),
    status TEXT NOT NULL CONSTRAINT status_is_known CHECK (status IN ('wait', 'queued', 'inprog', 'success', 'failed', 'aborted')),
    step TEXT NOT NULL DEFAULT 'rows' CONSTRAINT step_is_known CHECK (step IN ('rows', 'join', 'mark', 'done')),
    row_count INTEGER NOT NULL DEFAULT 0,     -- moved by submit and append
    next_row INTEGER NOT NULL DEFAULT 1,      -- the cursor: the first row that no lease has taken; moved by claims
    line_last INTEGER NOT NULL DEFAULT -1,    -- the line of the last row
    lines_ascend INTEGER NOT NULL DEFAULT 1,  -- 0 once a line did not grow; then line_order has every row
    success INTEGER NOT NULL DEFAULT 0,       -- moved in the transaction that appends the outcomes
    failed INTEGER NOT NULL DEFAULT 0,        -- the same
    fuel INTEGER NOT NULL DEFAULT 0,          -- the same
    row_micros INTEGER,                       -- measured time per row, smoothed; set by records
    abort_reason TEXT,                        -- set by abort
    mark_error TEXT,                          -- set when mark-done failed
    submitted_at INTEGER NOT NULL,
    started_at INTEGER,                       -- set by the first claim
    finished_at INTEGER,                      -- set when status and files are final
    finish_token INTEGER,                     -- set by the claim of a finish lease, cleared at the end of the step
    finish_worker TEXT,
    finish_expires_at INTEGER,
    finish_attempt INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT the_cursor_is_inside CHECK (next_row BETWEEN 1 AND row_count + 1),
    CONSTRAINT no_more_outcomes_than_rows CHECK (success + failed <= row_count)
) STRICT;

-- Claims look only at batches that have rows to lease.
CREATE INDEX batches_with_fresh_rows ON batches (batch_key) WHERE step = 'rows' AND status IN ('queued', 'inprog') AND next_row <= row_count;
CREATE INDEX batches_to_finish ON batches (batch_key) WHERE step IN ('join', 'mark');

-- Written once, never updated.
CREATE TABLE rows (
    batch_key INTEGER NOT NULL,
    row_no INTEGER NOT NULL,
    line INTEGER NOT NULL,                    -- the submitter's own number
    input TEXT NOT NULL,                      -- JSON
    rejected TEXT,                            -- why it cannot be run, if so
    PRIMARY KEY (batch_key, row_no)
) STRICT, WITHOUT ROWID;

-- Only for batches whose lines did not always grow.
CREATE TABLE line_order (
    batch_key INTEGER NOT NULL,
    line INTEGER NOT NULL,
    row_no INTEGER NOT NULL,
    PRIMARY KEY (batch_key, line, row_no)
) STRICT, WITHOUT ROWID;

-- A lease holds the rows next_row..last_row, or (retries = 1) the rows of retries that name it. It goes when its last row is recorded.
CREATE TABLE leases (
    lease_id INTEGER PRIMARY KEY,
    batch_key INTEGER NOT NULL,
    token INTEGER NOT NULL,                   -- changes with every owner
    worker TEXT NOT NULL,
    retries INTEGER NOT NULL DEFAULT 0,
    next_row INTEGER NOT NULL,                -- moved by records
    last_row INTEGER NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,       -- moved when it is taken over from a worker that went silent
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX leases_by_expiry ON leases (expires_at);
CREATE INDEX leases_by_batch ON leases (batch_key);

-- Rows that are to be run again.
CREATE TABLE retries (
    batch_key INTEGER NOT NULL,
    row_no INTEGER NOT NULL,
    attempt INTEGER NOT NULL,                 -- the attempt that comes
    due_at INTEGER NOT NULL,
    lease_id INTEGER,                         -- set by a claim, cleared when that attempt asks for another
    PRIMARY KEY (batch_key, row_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX retries_due ON retries (due_at) WHERE lease_id IS NULL;
CREATE INDEX retries_by_lease ON retries (lease_id, row_no) WHERE lease_id IS NOT NULL;

-- Append-only.
CREATE TABLE outcomes (
    batch_key INTEGER NOT NULL,
    row_no INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    fuel INTEGER NOT NULL,
    output TEXT,                              -- JSON
    messages TEXT,                            -- JSON array; NULL for none
    pieces TEXT,                              -- JSON array of [file_no, text]; NULL for none
    log TEXT,
    PRIMARY KEY (batch_key, row_no)
) STRICT, WITHOUT ROWID;

CREATE TABLE output_files (
    batch_key INTEGER NOT NULL,
    file_no INTEGER NOT NULL,
    name TEXT NOT NULL,
    object TEXT,                              -- set when the batch was joined
    size_bytes INTEGER,                       -- the same
    PRIMARY KEY (batch_key, file_no),
    UNIQUE (batch_key, name)
) STRICT, WITHOUT ROWID;
