-- What is submitted again and again. (The table `schedule` is the virtual time of claims.)
CREATE TABLE schedules (
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    schedule_id TEXT NOT NULL UNIQUE,         -- made with the schedule; the ids of its batches are made from it
    op TEXT NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)),
    kind TEXT NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('batch', 'slow_query')),
    cron TEXT NOT NULL,
    zone TEXT NOT NULL,                       -- of IANA
    terms TEXT,                               -- of what is submitted, as far as they are said, as JSON
    context TEXT NOT NULL,                    -- JSON
    row_count INTEGER NOT NULL CONSTRAINT at_least_one_row CHECK (row_count >= 1),
    missed TEXT NOT NULL CONSTRAINT missed_is_known CHECK (missed IN ('skip', 'once', 'all')),
    overlap TEXT NOT NULL CONSTRAINT overlap_is_known CHECK (overlap IN ('allow', 'skip')),
    paused INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL,                   -- changes when the schedule is changed, paused or resumed
    next_at INTEGER NOT NULL,                 -- moved by ticks
    last_at INTEGER,                          -- set by ticks
    last_batch TEXT,                          -- set by ticks that submit
    error TEXT,                               -- set when the last tick could not be submitted, cleared by the next
    PRIMARY KEY (app, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedules_by_tick ON schedules (next_at) WHERE NOT paused;

-- The rows of every batch that a schedule submits.
CREATE TABLE schedule_rows (
    schedule_id TEXT NOT NULL,
    row_no INTEGER NOT NULL,
    line INTEGER NOT NULL,
    input TEXT NOT NULL,                      -- JSON
    PRIMARY KEY (schedule_id, row_no)
) STRICT, WITHOUT ROWID;
