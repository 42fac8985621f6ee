CREATE TABLE apps (
    app TEXT PRIMARY KEY,
    weight INTEGER NOT NULL DEFAULT 1 CONSTRAINT weight_is_in_range CHECK (weight BETWEEN 1 AND 1000),
    running_max INTEGER CONSTRAINT at_least_one_may_run CHECK (running_max >= 1), -- leases that run at the same time; NULL for no limit
    limits TEXT,                              -- what one row may use, as JSON; NULL for the defaults
    served_micros INTEGER NOT NULL DEFAULT 0  -- virtual time: work that was leased, divided by the weight; moved by claims and records
) STRICT, WITHOUT ROWID;

-- One row: the virtual time of the last claim.
CREATE TABLE schedule (served_micros INTEGER NOT NULL) STRICT;
INSERT INTO schedule VALUES (0);

CREATE TABLE processors (
    app TEXT NOT NULL,
    op TEXT NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)),
    version INTEGER NOT NULL CONSTRAINT versions_begin_with_one CHECK (version >= 1),
    kind TEXT NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('batch', 'slow_query')),
    digest TEXT NOT NULL,                     -- SHA-256 of the component
    created_at INTEGER NOT NULL,
    PRIMARY KEY (app, op, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
    worker TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    query_slots INTEGER NOT NULL,
    draining INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL                  -- the last heartbeat
) STRICT, WITHOUT ROWID;

ALTER TABLE batches ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN charged_micros INTEGER NOT NULL DEFAULT 0; -- what its app was charged for it
ALTER TABLE leases ADD COLUMN took_micros INTEGER NOT NULL DEFAULT 0;    -- moved by records

-- Claims jump from app to app.
DROP INDEX batches_with_fresh_rows;
CREATE INDEX batches_with_fresh_rows ON batches (app, priority DESC, batch_key)
    WHERE step = 'rows' AND status IN ('queued', 'inprog') AND next_row <= row_count;
CREATE INDEX retries_due_by_batch ON retries (batch_key, due_at, row_no) WHERE lease_id IS NULL;
