-- A chained batch that was aborted because of the batch that it comes after (its predecessor) has a way back: it waits again when the predecessor runs again. The same holds
-- for each batch behind it. docs/batch-states.md has the states and the changes between them.
ALTER TABLE rowmill.batches ADD COLUMN chain_end text CONSTRAINT chain_end_is_known CHECK (chain_end IN ('made', 'lapsed'));
COMMENT ON COLUMN rowmill.batches.chain_end IS 'of a chained batch: NULL, not all of its rows are made; made, all of them are; lapsed, it was aborted because of its predecessor';
CREATE INDEX batches_lapsed ON rowmill.batches (after_batch) WHERE chain_end = 'lapsed';

-- Batches from before this migration. A batch that was released has all of its rows; an abort of a chain names the predecessor in its reason.
UPDATE rowmill.batches b SET chain_end = 'made'
WHERE b.after_batch IS NOT NULL AND (b.status NOT IN ('wait', 'aborted') OR b.started_at IS NOT NULL OR b.round > 1 OR b.success + b.failed > 0
    OR EXISTS (SELECT FROM rowmill.batch_events e WHERE e.batch_key = b.batch_key AND e.kind = 'released'));
UPDATE rowmill.batches b SET chain_end = 'lapsed'
WHERE b.after_batch IS NOT NULL AND b.chain_end IS NULL AND b.status = 'aborted' AND b.abort_reason LIKE '%batch ' || b.after_batch || '%' AND b.abort_reason LIKE '% to come after%';

-- Returns why a batch that comes after this predecessor cannot be made, as the store keeps reasons (model/abort.rs has the sentences); NULL if it can. The predecessor has ended.
CREATE FUNCTION rowmill.why_lapsed(p_first_key bigint, p_first uuid, p_condition text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    first record;
BEGIN
    SELECT b.status, b.success, b.parts INTO first FROM rowmill.batches b WHERE b.batch_key = p_first_key;
    IF NOT FOUND THEN
        RETURN json_build_object('predecessor_removed', json_build_object('batch', p_first));
    ELSIF first.parts & 4 = 0 THEN
        RETURN json_build_object('predecessor_pruned', json_build_object('batch', p_first));
    ELSIF p_condition = 'success' AND first.status <> 'success' THEN
        RETURN json_build_object('predecessor_ended', json_build_object('batch', p_first, 'status', first.status));
    ELSIF first.success = 0 THEN
        RETURN json_build_object('predecessor_without_outputs', json_build_object('batch', p_first));
    END IF;
    RETURN NULL;
END
$$;

-- Makes the next rows of a chained batch whose predecessor has ended: from at most p_rows rows of the predecessor and p_bytes bytes of outputs, but one row at least. Behind the
-- last row the batch is queued. It is aborted if it cannot be made (why_lapsed). Returns nothing if no such batch waits, or other transactions hold all of them.
--
-- Order of locks: the end of a batch, and its retry, wait for its chains. This transaction holds a chain and waits for the chained batch.
CREATE OR REPLACE FUNCTION rowmill.advance_chain(p_rows bigint, p_bytes bigint, OUT batch_id uuid, OUT status text) RETURNS SETOF record LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    chain record;
    made record;
    first record;
    reason text;
    looked int := 0;
    seen int := 0;
    more boolean := false;
    last_line bigint;
    last_row int;
    rows_made int := 0;
    longest int := 0;
BEGIN
    SELECT c.* INTO chain FROM rowmill.chains c WHERE c.ready ORDER BY c.taken, c.batch_key LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    SELECT b.* INTO made FROM rowmill.batches b WHERE b.batch_key = chain.batch_key FOR NO KEY UPDATE;
    IF NOT FOUND OR made.status <> 'wait' THEN
        DELETE FROM rowmill.chains c WHERE c.batch_key = chain.batch_key;
        batch_id := made.batch_id;
        status := 'gone';
        RETURN NEXT;
        RETURN;
    END IF;
    batch_id := made.batch_id;
    reason := rowmill.why_lapsed(chain.first_key, made.after_batch, made.after_condition);
    IF reason IS NULL THEN
        SELECT b.* INTO first FROM rowmill.batches b WHERE b.batch_key = chain.first_key;
        WITH next AS (
            SELECT w.line, w.row_no FROM rowmill.rows w
            WHERE first.lines_ascend AND w.batch_key = first.batch_key AND w.row_no > chain.row_no AND w.row_no <= chain.row_no + p_rows
            UNION ALL
            SELECT l.line, l.row_no FROM rowmill.next_lines(first.batch_key, chain.line, chain.row_no, CASE WHEN first.lines_ascend THEN 0 ELSE p_rows END, false) l),
        sized AS MATERIALIZED (
            SELECT n.line, n.row_no, o.bytes, sum(coalesce(o.bytes, 0)) OVER (ORDER BY n.line, n.row_no) - coalesce(o.bytes, 0) AS bytes_before
            FROM next n LEFT JOIN LATERAL (
                SELECT coalesce(octet_length(o.output), 4) AS bytes FROM rowmill.outcomes o
                WHERE o.batch_key = first.batch_key AND o.row_no = n.row_no AND NOT o.failed LIMIT 1) o ON true),
        page AS MATERIALIZED (SELECT * FROM sized WHERE bytes_before < p_bytes),
        written AS (
            INSERT INTO rowmill.rows (batch_key, line, row_no, input)
            SELECT made.batch_key, p.line, made.row_count + (row_number() OVER (ORDER BY p.line, p.row_no))::int, coalesce(o.output, 'null')
            FROM page p CROSS JOIN LATERAL (
                SELECT o.output FROM rowmill.outcomes o WHERE o.batch_key = first.batch_key AND o.row_no = p.row_no LIMIT 1) o
            WHERE p.bytes IS NOT NULL RETURNING octet_length(input) AS bytes)
        SELECT (SELECT count(*) FROM sized), (SELECT count(*) FROM page), (SELECT count(*) FROM written), (SELECT max(bytes) FROM written), l.line, l.row_no
        INTO seen, looked, rows_made, longest, last_line, last_row
        FROM (SELECT) one LEFT JOIN LATERAL (SELECT p.line, p.row_no FROM page p ORDER BY p.line DESC, p.row_no DESC LIMIT 1) l ON true;
        more := looked < seen OR seen = p_rows;
    END IF;
    status := CASE WHEN reason IS NOT NULL THEN 'aborted' WHEN more THEN 'wait' ELSE 'queued' END;
    UPDATE rowmill.batches b SET status = advance_chain.status, step = CASE WHEN reason IS NULL THEN 'rows' ELSE 'join' END, abort_reason = reason,
        chain_end = CASE WHEN reason IS NOT NULL THEN 'lapsed' WHEN NOT more THEN 'made' END,
        row_count = b.row_count + rows_made, line_last = coalesce(last_line, b.line_last), input_bytes_max = greatest(b.input_bytes_max, longest),
        fresh = reason IS NULL AND NOT more AND NOT b.deferred
    WHERE b.batch_key = chain.batch_key;
    IF more THEN
        UPDATE rowmill.chains c SET begun = true, line = last_line, row_no = last_row, taken = c.taken + looked WHERE c.batch_key = chain.batch_key;
    ELSE
        DELETE FROM rowmill.chains c WHERE c.batch_key = chain.batch_key;
        IF reason IS NOT NULL THEN
            PERFORM pg_notify('rowmill', 'aborted ' || made.batch_id), pg_notify('rowmill', 'work ' || made.kind);
        ELSE
            PERFORM pg_notify('rowmill', CASE WHEN made.deferred THEN 'work ' || made.kind ELSE made.kind || ' ' || made.app END);
        END IF;
    END IF;
    RETURN NEXT;
END
$$;

-- Lets a chained batch that was aborted before it had all of its rows wait for its predecessor again, in a new round. The rows that it had are removed: none of them ran, and they
-- are of an older round of the predecessor. Returns the round. The caller holds the batch, its row of chains and lock_chains of it.
CREATE FUNCTION rowmill.wait_again(p_batch_key bigint, p_first_key bigint, p_ready boolean, p_deadline bigint, p_at bigint) RETURNS int LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    new_round int;
BEGIN
    INSERT INTO rowmill.past_rounds (batch_key, round, status, row_count, success, failed, abort_reason, mark_error, started_at, finished_at)
    SELECT b.batch_key, b.round, b.status, b.row_count, b.success, b.failed, b.abort_reason, b.mark_error, b.started_at, coalesce(b.finished_at, p_at)
    FROM rowmill.batches b WHERE b.batch_key = p_batch_key;
    DELETE FROM rowmill.rows r WHERE r.batch_key = p_batch_key;
    INSERT INTO rowmill.chains (batch_key, first_key, ready) VALUES (p_batch_key, p_first_key, p_ready)
    ON CONFLICT (batch_key) DO UPDATE SET ready = p_ready, begun = false, line = -1, row_no = 0, taken = 0;
    UPDATE rowmill.batches b SET status = 'wait', step = 'rows', round = b.round + 1, chain_end = NULL, row_count = 0, line_last = -1, input_bytes_max = 0, fresh = false,
        deadline_at = coalesce(p_deadline, CASE WHEN b.deadline_at > p_at THEN b.deadline_at END),
        abort_reason = NULL, mark_error = NULL, started_at = NULL, finished_at = NULL,
        finish_token = NULL, finish_worker = NULL, finish_expires_at = NULL, finish_attempt = 0
    WHERE b.batch_key = p_batch_key RETURNING b.round INTO new_round;
    RETURN new_round;
END
$$;

-- Lets the batches that were aborted because of this batch wait for it again, and so on for those behind them. Returns their ids. The caller holds the batch and lock_chains of it.
--
-- Order of locks: predecessors before the batches behind them; of each batch lock_chains, then its row of chains, then the batch. A transaction holds the batch at which it began
-- before it locks one behind it, so two transactions on one chain wait for each other at the upper of the two, and never in a circle.
-- At most p_most batches: each holds locks until the end of the transaction.
CREATE FUNCTION rowmill.wait_behind(p_batch_key bigint, p_batch_id uuid, p_at bigint, p_most int) RETURNS uuid[] LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    keys bigint[] := ARRAY[p_batch_key];
    ids uuid[] := ARRAY[p_batch_id];
    at int := 1;
    found_key bigint;
    found_id uuid;
BEGIN
    WHILE at <= cardinality(keys) LOOP
        -- Chains that have not begun wait for the end of the new round, too.
        UPDATE rowmill.chains c SET ready = false WHERE c.first_key = keys[at] AND NOT c.begun;
        FOR found_key, found_id IN
            SELECT b.batch_key, b.batch_id FROM rowmill.batches b WHERE b.after_batch = ids[at] AND b.chain_end = 'lapsed' ORDER BY b.batch_key
        LOOP
            IF cardinality(keys) > p_most THEN RETURN ids[2:]; END IF;
            PERFORM rowmill.lock_chains(found_key, false);
            PERFORM FROM rowmill.chains c WHERE c.batch_key = found_key FOR UPDATE;
            -- Another transaction may have changed it meanwhile. A batch of which parts were pruned cannot run again.
            PERFORM FROM rowmill.batches b WHERE b.batch_key = found_key AND b.chain_end = 'lapsed' AND b.pruning = 0 AND b.parts & 6 = 6 FOR NO KEY UPDATE;
            CONTINUE WHEN NOT FOUND;
            PERFORM rowmill.wait_again(found_key, keys[at], false, NULL, p_at);
            keys := keys || found_key;
            ids := ids || found_id;
        END LOOP;
        at := at + 1;
    END LOOP;
    RETURN ids[2:];
END
$$;

-- A new round for the failed rows of a batch that has ended, of these codes if there are any (as they stand in messages), and for the rows that were aborted, if so wanted. A
-- chained batch that was aborted before it had all of its rows waits for its predecessor again. Batches that were aborted because of this one wait for it again (waits). Returns
-- in one word why not (refusal), with the reason of an abort where that would come again. Nothing for an unknown batch.
--
-- While outcomes move, other transactions that read the batch see it as it was, and none waits for it: a batch that is done is in no index of claims.
DROP FUNCTION rowmill.retry_batch(uuid, text[], boolean, bigint, bigint);
CREATE FUNCTION rowmill.retry_batch(p_batch_id uuid, p_codes text[], p_aborted boolean, p_deadline bigint, p_now bigint, p_waits_max int,
    OUT refusal text, OUT reason text, OUT status text, OUT round int, OUT rows bigint, OUT waits uuid[]) RETURNS SETOF record LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    key bigint;
    first_key bigint;
    first_ended boolean;
    batch record;
    moved bigint;
BEGIN
    SELECT b.batch_key, f.batch_key INTO key, first_key FROM rowmill.batches b
    LEFT JOIN rowmill.batches f ON f.batch_id = b.after_batch AND b.chain_end IS DISTINCT FROM 'made' WHERE b.batch_id = p_batch_id;
    IF key IS NULL THEN RETURN; END IF;
    -- If it is to wait again, its predecessor does not end meanwhile without knowing of it.
    IF first_key IS NOT NULL THEN PERFORM rowmill.lock_chains(first_key, true); END IF;
    PERFORM rowmill.lock_chains(key, false);
    -- What an abort left is not to come back to life. Before the batch is locked: a record that holds one of these waits for the batch.
    DELETE FROM rowmill.leases l WHERE l.batch_key = key AND (SELECT b.step = 'done' FROM rowmill.batches b WHERE b.batch_key = key);
    DELETE FROM rowmill.retries r WHERE r.batch_key = key AND (SELECT b.step = 'done' FROM rowmill.batches b WHERE b.batch_key = key);
    -- The chain before the batch: advance_chain locks them in this order.
    PERFORM FROM rowmill.chains c WHERE c.batch_key = key FOR UPDATE;
    SELECT b.* INTO batch FROM rowmill.batches b WHERE b.batch_key = key FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    status := batch.status;
    refusal := CASE WHEN batch.kind <> 'batch' THEN 'kind' WHEN batch.step <> 'done' THEN 'runs' WHEN batch.status = 'aborted' AND NOT p_aborted THEN 'aborted'
        -- Its inputs and outcomes are needed (bits of parts: 0020).
        WHEN batch.pruning <> 0 OR batch.parts & 6 <> 6 THEN 'pruned'
        WHEN EXISTS (SELECT FROM rowmill.chains c WHERE c.first_key = key AND c.begun) THEN 'chained' END;
    IF refusal IS NOT NULL THEN RETURN NEXT; RETURN; END IF;
    IF batch.after_batch IS NOT NULL AND batch.chain_end IS DISTINCT FROM 'made' THEN
        first_ended := coalesce((SELECT b.step IN ('mark', 'done') FROM rowmill.batches b WHERE b.batch_key = first_key), true);
        IF first_ended THEN reason := rowmill.why_lapsed(first_key, batch.after_batch, batch.after_condition); END IF;
        IF reason IS NOT NULL THEN
            refusal := 'lapses';
            RETURN NEXT;
            RETURN;
        END IF;
        rows := 0;
        round := rowmill.wait_again(key, first_key, first_ended, p_deadline, at);
        status := 'wait';
        waits := rowmill.wait_behind(key, p_batch_id, at, p_waits_max);
        IF first_ended THEN PERFORM pg_notify('rowmill', 'work ' || batch.kind); END IF;
        RETURN NEXT;
        RETURN;
    END IF;
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
    waits := rowmill.wait_behind(key, p_batch_id, at, p_waits_max);
    -- Rows may have begun to be made of its outputs just now.
    IF EXISTS (SELECT FROM rowmill.chains c WHERE c.first_key = key AND c.begun) THEN RAISE 'its outputs are being read' USING ERRCODE = 'RM005'; END IF;
    PERFORM pg_notify('rowmill', CASE WHEN batch.deferred THEN 'work ' || batch.kind ELSE batch.kind || ' ' || batch.app END);
    RETURN NEXT;
END
$$;
