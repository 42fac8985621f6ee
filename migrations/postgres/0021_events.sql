-- What happens to batches, in order. A trigger writes it down in the transaction that does it, whoever that is: nothing is missing, and nothing comes before its cause.
--
-- Order and position. The events of a batch are numbered (seq) under the lock of its row, which a transaction holds to its end: whoever sees an event sees those before it.
-- Between batches transactions commit in any order, so a reader that goes by a counter could pass over an event that commits later. Therefore a position begins with the number of
-- the transaction (xid), and nobody reads events of transactions that are not older than all that still run (pg_snapshot_xmin): behind a position nothing is added any more. A
-- transaction may have got its number before one that it then waited for at the row of a batch; so the xid of an event is at least that of the event before (event_xid), and the order by
-- position is that of seq within each batch. The lock makes this as safe: the older transaction has ended, and the younger number is not readable before the one that runs has ended.
ALTER TABLE rowmill.batches
    ADD COLUMN event_seq int NOT NULL DEFAULT 1,
    ADD COLUMN event_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN progress_at bigint,
    ADD COLUMN failure_at bigint,
    ADD COLUMN failures_told int NOT NULL DEFAULT 0,
    ADD COLUMN failed_row int;
COMMENT ON COLUMN rowmill.batches.event_seq IS 'of its last event';
COMMENT ON COLUMN rowmill.batches.event_xid IS 'of its last event';
COMMENT ON COLUMN rowmill.batches.progress_at IS 'when it was started, or its progress told last';
COMMENT ON COLUMN rowmill.batches.failure_at IS 'when a failed row was told last';
COMMENT ON COLUMN rowmill.batches.failures_told IS 'failed rows that had been counted then';
COMMENT ON COLUMN rowmill.batches.failed_row IS 'one of those that failed with the last record that had some';

CREATE TABLE rowmill.batch_events (
    batch_key bigint NOT NULL,
    seq int NOT NULL,
    xid xid8 NOT NULL,
    event_no bigint GENERATED ALWAYS AS IDENTITY,
    at bigint NOT NULL,
    kind text NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('submitted', 'released', 'started', 'progress', 'row-failed', 'aborted', 'finished', 'summarised')),
    status text NOT NULL,
    row_count int NOT NULL,
    success int NOT NULL,
    failed int NOT NULL,
    line bigint,
    failures int,
    note text,
    PRIMARY KEY (batch_key, seq)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.5);
COMMENT ON COLUMN rowmill.batch_events.at IS 'by the clock of the database';
COMMENT ON COLUMN rowmill.batch_events.line IS 'of a failed row';
COMMENT ON COLUMN rowmill.batch_events.failures IS 'rows that failed since the last event of a failed row, that one included';
COMMENT ON COLUMN rowmill.batch_events.note IS 'why it was aborted; what mark-done returned; the messages of a failed row, as JSON';
CREATE UNIQUE INDEX batch_events_by_position ON rowmill.batch_events (xid, event_no);

CREATE FUNCTION rowmill.tell_submitted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rowmill.batch_events (batch_key, seq, xid, at, kind, status, row_count, success, failed)
    VALUES (NEW.batch_key, 1, NEW.event_xid, rowmill.now_ms(), 'submitted', CASE NEW.status WHEN 'inprog' THEN 'queued' ELSE NEW.status END, NEW.row_count, 0, 0);
    IF NEW.status = 'inprog' THEN
        -- It was leased with its submission.
        INSERT INTO rowmill.batch_events (batch_key, seq, xid, at, kind, status, row_count, success, failed)
        VALUES (NEW.batch_key, 2, NEW.event_xid, rowmill.now_ms(), 'started', NEW.status, NEW.row_count, 0, 0);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_submitted AFTER INSERT ON rowmill.batches FOR EACH ROW EXECUTE FUNCTION rowmill.tell_submitted();

-- What is told of a failed row. Seldom called; by itself, since settings of a function take longer than the trigger needs else.
CREATE FUNCTION rowmill.failed_row(p_batch_key bigint, p_row int, OUT line bigint, OUT messages text) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    SELECT r.line INTO line FROM rowmill.rows r WHERE r.batch_key = p_batch_key AND r.row_no = p_row;
    SELECT o.messages INTO messages FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no = p_row;
END
$$;

-- Progress and failed rows are told once a second at most; the first failed row at once.
CREATE FUNCTION rowmill.tell_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    at bigint := rowmill.now_ms();
    what text;
BEGIN
    IF OLD.step = 'done' AND NEW.step <> 'done' THEN
        -- It is run again, which needs inputs and outcomes. Files and events come anew.
        IF NEW.pruning <> 0 OR NEW.parts & 6 <> 6 THEN RAISE 'parts of the batch were pruned' USING ERRCODE = 'RM005'; END IF;
        NEW.parts := 15;
        NEW.files_pruned_at := NULL;
    END IF;
    IF NEW.failed < NEW.failures_told THEN NEW.failures_told := NEW.failed; END IF;
    IF NEW.failed > OLD.failed AND (NEW.failure_at IS NULL OR at - NEW.failure_at >= 1000) THEN
        NEW.event_seq := NEW.event_seq + 1;
        NEW.event_xid := greatest(NEW.event_xid, pg_current_xact_id());
        INSERT INTO rowmill.batch_events (batch_key, seq, xid, at, kind, status, row_count, success, failed, failures, line, note)
        SELECT NEW.batch_key, NEW.event_seq, NEW.event_xid, at, 'row-failed', OLD.status, NEW.row_count, NEW.success, NEW.failed, NEW.failed - NEW.failures_told, f.*
        FROM rowmill.failed_row(NEW.batch_key, NEW.failed_row) f;
        NEW.failure_at := at;
        NEW.failures_told := NEW.failed;
    END IF;
    what := CASE
        WHEN NEW.status = 'aborted' AND OLD.status <> 'aborted' THEN 'aborted'
        WHEN NEW.step = 'done' AND OLD.step <> 'done' THEN 'summarised'
        WHEN NEW.step = 'mark' AND OLD.step <> 'mark' THEN 'finished'
        WHEN OLD.status <> 'queued' AND NEW.status = 'queued' THEN 'released'
        WHEN OLD.status <> 'inprog' AND NEW.status = 'inprog' THEN 'started'
        WHEN NEW.step = 'rows' AND NEW.success + NEW.failed > OLD.success + OLD.failed AND at - NEW.progress_at >= 1000 THEN 'progress' END;
    IF what IS NULL THEN RETURN NEW; END IF;
    IF what IN ('started', 'progress') THEN NEW.progress_at := at; END IF;
    NEW.event_seq := NEW.event_seq + 1;
    NEW.event_xid := greatest(NEW.event_xid, pg_current_xact_id());
    INSERT INTO rowmill.batch_events (batch_key, seq, xid, at, kind, status, row_count, success, failed, note)
    VALUES (NEW.batch_key, NEW.event_seq, NEW.event_xid, at, what, NEW.status, NEW.row_count, NEW.success, NEW.failed,
        CASE what WHEN 'aborted' THEN NEW.abort_reason WHEN 'summarised' THEN NEW.mark_error END);
    RETURN NEW;
END
$$;
CREATE TRIGGER tell_changed BEFORE UPDATE ON rowmill.batches FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.step <> NEW.step OR OLD.success <> NEW.success OR OLD.failed <> NEW.failed)
EXECUTE FUNCTION rowmill.tell_changed();
