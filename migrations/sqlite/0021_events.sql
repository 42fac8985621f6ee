-- What happens to batches, in order. Triggers write it down in the transaction that does it. One connection writes, so the order of event_no is that in which it happened.
ALTER TABLE batches ADD COLUMN event_seq INTEGER NOT NULL DEFAULT 1; -- of its last event
ALTER TABLE batches ADD COLUMN progress_at INTEGER;                  -- when it was started, or its progress told last
ALTER TABLE batches ADD COLUMN failure_at INTEGER;                   -- when a failed row was told last
ALTER TABLE batches ADD COLUMN failures_told INTEGER NOT NULL DEFAULT 0; -- failed rows that had been counted then
ALTER TABLE batches ADD COLUMN failed_row INTEGER;                   -- one of those that failed with the last record that had some

CREATE TABLE batch_events (
    event_no INTEGER PRIMARY KEY AUTOINCREMENT, -- a position: none comes twice
    batch_key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,                      -- by the clock of the machine
    kind TEXT NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('submitted', 'released', 'started', 'progress', 'row-failed', 'aborted', 'finished', 'summarised')),
    status TEXT NOT NULL,
    row_count INTEGER NOT NULL,
    success INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    line INTEGER,                             -- of a failed row
    failures INTEGER,                         -- rows that failed since the last event of a failed row, that one included
    note TEXT                                 -- why it was aborted; what mark-done returned; the messages of a failed row, as JSON
) STRICT;
CREATE UNIQUE INDEX batch_events_by_batch ON batch_events (batch_key, seq);

-- Rows are counted behind the insert, in the same transaction.
CREATE TRIGGER tell_submitted AFTER INSERT ON batches
BEGIN
    INSERT INTO batch_events (batch_key, seq, at, kind, status, row_count, success, failed)
    VALUES (NEW.batch_key, NEW.event_seq, CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER), 'submitted', NEW.status, NEW.row_count, 0, 0);
END;

-- Progress and failed rows are told once a second at most; the first failed row at once.
CREATE TRIGGER tell_changed AFTER UPDATE OF status, step, success, failed ON batches
WHEN OLD.status <> NEW.status OR OLD.step <> NEW.step OR OLD.success <> NEW.success OR OLD.failed <> NEW.failed
BEGIN
    -- It is run again, which needs inputs and outcomes. Files and events come anew.
    SELECT RAISE(ABORT, 'parts of the batch were pruned') WHERE OLD.step = 'done' AND NEW.step <> 'done' AND (NEW.pruning <> 0 OR NEW.parts & 6 <> 6);
    UPDATE batches SET parts = 15, files_pruned_at = NULL WHERE batch_key = NEW.batch_key AND OLD.step = 'done' AND NEW.step <> 'done';
    UPDATE batches SET failures_told = min(failures_told, failed) WHERE batch_key = NEW.batch_key AND failures_told > failed;
    INSERT INTO batch_events (batch_key, seq, at, kind, status, row_count, success, failed, failures, line, note)
    SELECT b.batch_key, b.event_seq + 1, CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER), 'row-failed', OLD.status, b.row_count, b.success, b.failed,
        b.failed - b.failures_told,
        (SELECT r.line FROM rows r WHERE r.batch_key = b.batch_key AND r.row_no = b.failed_row),
        (SELECT o.messages FROM outcomes o WHERE o.batch_key = b.batch_key AND o.row_no = b.failed_row)
    FROM batches b
    WHERE b.batch_key = NEW.batch_key AND NEW.failed > OLD.failed AND coalesce(unixepoch('now', 'subsec') * 1000 - b.failure_at >= 1000, 1);
    UPDATE batches SET event_seq = event_seq + 1, failures_told = failed, failure_at = CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)
    WHERE batch_key = NEW.batch_key AND event_seq < (SELECT max(seq) FROM batch_events WHERE batch_key = NEW.batch_key);
    INSERT INTO batch_events (batch_key, seq, at, kind, status, row_count, success, failed, note)
    SELECT w.batch_key, w.event_seq + 1, w.at, w.what, NEW.status, NEW.row_count, NEW.success, NEW.failed,
        CASE w.what WHEN 'aborted' THEN NEW.abort_reason WHEN 'summarised' THEN NEW.mark_error END
    FROM (SELECT b.batch_key, b.event_seq, CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) AS at, CASE
            WHEN NEW.status = 'aborted' AND OLD.status <> 'aborted' THEN 'aborted'
            WHEN NEW.step = 'done' AND OLD.step <> 'done' THEN 'summarised'
            WHEN NEW.step = 'mark' AND OLD.step <> 'mark' THEN 'finished'
            WHEN OLD.status <> 'queued' AND NEW.status = 'queued' THEN 'released'
            WHEN OLD.status <> 'inprog' AND NEW.status = 'inprog' THEN 'started'
            WHEN NEW.step = 'rows' AND NEW.success + NEW.failed > OLD.success + OLD.failed
                AND unixepoch('now', 'subsec') * 1000 - b.progress_at >= 1000 THEN 'progress' END AS what
        FROM batches b WHERE b.batch_key = NEW.batch_key) w
    WHERE w.what IS NOT NULL;
    UPDATE batches SET event_seq = event_seq + 1, progress_at = CASE WHEN (SELECT e.kind FROM batch_events e WHERE e.batch_key = NEW.batch_key ORDER BY e.seq DESC LIMIT 1)
        IN ('started', 'progress') THEN CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) ELSE progress_at END
    WHERE batch_key = NEW.batch_key AND event_seq < (SELECT max(seq) FROM batch_events WHERE batch_key = NEW.batch_key);
END;
