-- A batch that has ended may be run again, where rows of it failed or were aborted: in a new round. What the rounds before came to stays.
ALTER TABLE batches ADD COLUMN round INTEGER NOT NULL DEFAULT 1 CONSTRAINT rounds_begin_with_one CHECK (round >= 1); -- moved by retries of the batch

-- How rounds ended that were followed by another.
CREATE TABLE past_rounds (
    batch_key INTEGER NOT NULL,
    round INTEGER NOT NULL,
    status TEXT NOT NULL CONSTRAINT status_is_final CHECK (status IN ('success', 'failed', 'aborted')),
    row_count INTEGER NOT NULL,
    success INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    abort_reason TEXT,
    mark_error TEXT,
    started_at INTEGER,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (batch_key, round)
) STRICT, WITHOUT ROWID;

-- Outcomes of rows that were run again: they failed. Their pieces are in the files of the round.
CREATE TABLE past_outcomes (
    batch_key INTEGER NOT NULL,
    row_no INTEGER NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    fuel INTEGER NOT NULL,
    output TEXT,
    messages TEXT,
    log TEXT,
    PRIMARY KEY (batch_key, row_no, round)
) STRICT, WITHOUT ROWID;

-- Output files of rounds that were followed by another.
CREATE TABLE past_files (
    batch_key INTEGER NOT NULL,
    round INTEGER NOT NULL,
    name TEXT NOT NULL,
    object TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (batch_key, round, name)
) STRICT, WITHOUT ROWID;
