-- A batch that has ended may be run again, where rows of it failed or were aborted: in a new round. What the rounds before came to stays.
ALTER TABLE rowmill.batches ADD COLUMN round int NOT NULL DEFAULT 1 CONSTRAINT rounds_begin_with_one CHECK (round >= 1);
COMMENT ON COLUMN rowmill.batches.round IS 'moved by retries of the batch; its counts, times, files and reasons are those of this round';

-- How rounds ended that were followed by another.
CREATE TABLE rowmill.past_rounds (
    batch_key bigint NOT NULL,
    round int NOT NULL,
    status text NOT NULL CONSTRAINT status_is_final CHECK (status IN ('success', 'failed', 'aborted')),
    row_count int NOT NULL,
    success int NOT NULL,
    failed int NOT NULL,
    abort_reason text,
    mark_error text,
    started_at bigint,
    finished_at bigint NOT NULL,
    PRIMARY KEY (batch_key, round)
);

-- Outcomes of rows that were run again.
CREATE TABLE rowmill.past_outcomes (
    batch_key bigint NOT NULL,
    row_no int NOT NULL,
    round int NOT NULL,
    attempt int NOT NULL,
    fuel bigint NOT NULL,
    output text,
    messages text,
    log text,
    PRIMARY KEY (batch_key, row_no, round)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.5);
COMMENT ON TABLE rowmill.past_outcomes IS 'outcomes of rows that were run again: they failed; their pieces are in the files of the round';

-- Output files of rounds that were followed by another.
CREATE TABLE rowmill.past_files (
    batch_key bigint NOT NULL,
    round int NOT NULL,
    name text COLLATE "C" NOT NULL,
    object text NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (batch_key, round, name)
);

-- A new round for the failed rows of a batch that has ended, of these codes if there are any (as they stand in messages), and for the rows that were aborted, if so wanted. Says in
-- one word why not. Nothing for an unknown batch.
--
-- While outcomes move, others who look at the batch see it as it was, and nobody waits for it: what is done is in no index of claims.
CREATE FUNCTION rowmill.retry_batch(p_batch_id uuid, p_codes text[], p_aborted boolean, p_deadline bigint, p_now bigint,
    OUT refusal text, OUT status text, OUT round int, OUT rows bigint) RETURNS SETOF record LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    key bigint := (SELECT b.batch_key FROM rowmill.batches b WHERE b.batch_id = p_batch_id);
    batch record;
    moved bigint;
BEGIN
    IF key IS NULL THEN RETURN; END IF;
    PERFORM rowmill.lock_chains(key, false);
    -- What an abort left is not to come back to life. Before the batch is locked: a record that holds one of these waits for the batch.
    DELETE FROM rowmill.leases l WHERE l.batch_key = key AND (SELECT b.step = 'done' FROM rowmill.batches b WHERE b.batch_key = key);
    DELETE FROM rowmill.retries r WHERE r.batch_key = key AND (SELECT b.step = 'done' FROM rowmill.batches b WHERE b.batch_key = key);
    SELECT b.* INTO batch FROM rowmill.batches b WHERE b.batch_key = key FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    status := batch.status;
    refusal := CASE WHEN batch.kind <> 'batch' THEN 'kind' WHEN batch.step <> 'done' THEN 'runs' WHEN batch.status = 'aborted' AND NOT p_aborted THEN 'aborted'
        -- Its inputs and outcomes are needed (bits of parts: 0020).
        WHEN batch.pruning <> 0 OR batch.parts & 6 <> 6 THEN 'pruned'
        WHEN EXISTS (SELECT FROM rowmill.chains c WHERE c.first_key = key AND c.begun) THEN 'chained' END;
    IF refusal IS NOT NULL THEN RETURN NEXT; RETURN; END IF;
    WITH moved AS (
        DELETE FROM rowmill.outcomes o WHERE o.batch_key = key AND o.failed
            AND (cardinality(p_codes) = 0 OR EXISTS (SELECT FROM unnest(p_codes) c (code) WHERE position(c.code IN o.messages) > 0))
        RETURNING o.row_no, o.attempt, o.fuel, o.output, o.messages, o.log),
    kept AS (
        INSERT INTO rowmill.past_outcomes (batch_key, row_no, round, attempt, fuel, output, messages, log)
        SELECT key, m.row_no, batch.round, m.attempt, m.fuel, m.output, m.messages, m.log FROM moved m)
    INSERT INTO rowmill.retries (batch_key, row_no, app, op, kind, attempt, due_at)
    SELECT key, m.row_no, batch.app, batch.op, batch.kind, 1, at FROM moved m;
    GET DIAGNOSTICS moved = ROW_COUNT;
    rows := moved;
    IF batch.status = 'aborted' THEN
        -- Those that a lease had taken. The others wait behind the cursor, as they did.
        INSERT INTO rowmill.retries (batch_key, row_no, app, op, kind, attempt, due_at)
        SELECT key, w.row_no, batch.app, batch.op, batch.kind, 1, at FROM rowmill.rows w
        WHERE w.batch_key = key AND w.row_no < batch.next_row
            AND NOT EXISTS (SELECT FROM rowmill.outcomes o WHERE o.batch_key = key AND o.row_no = w.row_no)
        ON CONFLICT (batch_key, row_no) DO NOTHING;
        rows := batch.row_count - (batch.success + batch.failed) + moved;
    END IF;
    IF rows = 0 THEN
        refusal := 'nothing';
        RETURN NEXT;
        RETURN;
    END IF;
    -- What has not begun to be made of its outputs waits for the end of the new round. It may have begun just now.
    UPDATE rowmill.chains c SET ready = false WHERE c.first_key = key AND NOT c.begun;
    IF EXISTS (SELECT FROM rowmill.chains c WHERE c.first_key = key AND c.begun) THEN RAISE 'its outputs are being read' USING ERRCODE = 'RM005'; END IF;
    INSERT INTO rowmill.past_rounds (batch_key, round, status, row_count, success, failed, abort_reason, mark_error, started_at, finished_at)
    VALUES (key, batch.round, batch.status, batch.row_count, batch.success, batch.failed, batch.abort_reason, batch.mark_error, batch.started_at, batch.finished_at);
    INSERT INTO rowmill.past_files (batch_key, round, name, object, size_bytes)
    SELECT key, batch.round, f.name, f.object, f.size_bytes FROM rowmill.output_files f WHERE f.batch_key = key AND f.object IS NOT NULL;
    UPDATE rowmill.output_files f SET object = NULL, size_bytes = NULL WHERE f.batch_key = key AND f.object IS NOT NULL;
    UPDATE rowmill.batches b SET status = 'queued', step = 'rows', round = b.round + 1, failed = b.failed - moved,
        fresh = b.next_row <= b.row_count AND NOT b.deferred, deadline_at = coalesce(p_deadline, CASE WHEN b.deadline_at > at THEN b.deadline_at END),
        abort_reason = NULL, mark_error = NULL, started_at = NULL, finished_at = NULL,
        finish_token = NULL, finish_worker = NULL, finish_expires_at = NULL, finish_attempt = 0
    WHERE b.batch_key = key RETURNING b.status, b.round INTO status, round;
    PERFORM pg_notify('rowmill', CASE WHEN batch.deferred THEN 'work ' || batch.kind ELSE batch.kind || ' ' || batch.app END);
    RETURN NEXT;
END
$$;
