-- mark-done may be called several times in a round. What its calls logged, and how they failed, is kept.

-- Calls of mark-done in this round that ended, or whose worker died; moved by the record of a call, set back by a retry of the batch.
ALTER TABLE batches ADD COLUMN mark_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE past_rounds ADD COLUMN mark_calls INTEGER NOT NULL DEFAULT 0;
UPDATE batches SET mark_calls = finish_attempt WHERE step = 'done';
UPDATE past_rounds SET mark_calls = 1;

-- The calls that logged something or failed.
CREATE TABLE mark_calls (
    batch_key INTEGER NOT NULL,
    round INTEGER NOT NULL,
    call INTEGER NOT NULL,                        -- 1 for the first call in the round
    ended_at INTEGER NOT NULL,
    error TEXT,                                   -- how the call failed
    log TEXT,
    log_dropped INTEGER NOT NULL CONSTRAINT a_log_is_kept_or_dropped CHECK (log_dropped = 0 OR log IS NULL), -- it did not fit into what the batch may log
    PRIMARY KEY (batch_key, round, call)
) STRICT, WITHOUT ROWID;

-- They are pruned with the outcomes (bit 4 of the parts), as the logs of rows are.
CREATE TRIGGER mark_calls_go_with_the_outcomes AFTER UPDATE OF parts ON batches WHEN OLD.parts & 4 <> 0 AND NEW.parts & 4 = 0
BEGIN
    DELETE FROM mark_calls WHERE batch_key = NEW.batch_key;
END;
