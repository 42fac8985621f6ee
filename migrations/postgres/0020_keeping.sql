-- How long batches are kept, and how they are pruned.
ALTER TABLE rowmill.policies ADD COLUMN keep text;
COMMENT ON COLUMN rowmill.policies.keep IS 'how long batches are kept once they are done, as far as it is said, as JSON';

-- Parts are bits: 1 output files, 2 inputs and the files that they came from, 4 outcomes, 8 events; 16 is the batch itself.
ALTER TABLE rowmill.batches
    ADD COLUMN parts smallint NOT NULL DEFAULT 15,
    ADD COLUMN pruning smallint NOT NULL DEFAULT 0,
    ADD COLUMN pruning_until bigint,
    ADD COLUMN pruned_rows int NOT NULL DEFAULT 0,
    ADD COLUMN files_pruned_at bigint,
    ADD COLUMN inputs_pruned_at bigint,
    ADD COLUMN outcomes_pruned_at bigint,
    ADD CONSTRAINT only_what_is_done_is_pruned CHECK (step = 'done' OR (parts = 15 AND pruning = 0)),
    ADD CONSTRAINT a_part_is_there_or_pruned CHECK (parts & pruning = 0);
COMMENT ON COLUMN rowmill.batches.parts IS 'what is there';
COMMENT ON COLUMN rowmill.batches.pruning IS 'what counts as pruned and is being removed';
COMMENT ON COLUMN rowmill.batches.pruning_until IS 'others leave what is being pruned alone until then';
COMMENT ON COLUMN rowmill.batches.pruned_rows IS 'rows up to this one are pruned already, of what is being pruned';
-- The oldest batch of an operation that has a part, for each set of parts.
CREATE INDEX batches_done ON rowmill.batches (app, op, parts, finished_at) WHERE step = 'done' AND pruning = 0;
CREATE INDEX batches_pruning ON rowmill.batches (batch_key) WHERE pruning <> 0;
-- A kept file may be that of several batches.
CREATE INDEX batch_files_by_object ON rowmill.batch_files (object) WHERE object IS NOT NULL;

-- A vacuum that gives room at the end of a table back locks it: what is pruned makes room for what comes.
ALTER TABLE rowmill.rows SET (vacuum_truncate = off);
ALTER TABLE rowmill.outcomes SET (vacuum_truncate = off);

-- Operations with batches that are done, behind one of them (NULL for the first). Jumps from operation to operation.
CREATE FUNCTION rowmill.list_done_ops(p_app text, p_op text, p_limit int) RETURNS TABLE (app text, op text) LANGUAGE plpgsql STABLE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    FOR i IN 1..p_limit LOOP
        IF p_app IS NULL THEN
            SELECT b.app, b.op INTO p_app, p_op FROM rowmill.batches b WHERE b.step = 'done' AND b.pruning = 0 ORDER BY b.app, b.op LIMIT 1;
        ELSE
            SELECT b.app, b.op INTO p_app, p_op FROM rowmill.batches b WHERE b.step = 'done' AND b.pruning = 0 AND (b.app, b.op) > (p_app, p_op)
            ORDER BY b.app, b.op LIMIT 1;
        END IF;
        EXIT WHEN NOT FOUND;
        app := p_app;
        op := p_op;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Lets parts of a batch count as pruned, the batch itself among them (16), and takes it up for a while.
CREATE FUNCTION rowmill.mark_pruned(p_batch_key bigint, p_bits int, p_at bigint, p_ttl bigint) RETURNS TABLE (batch_id uuid, pruning int) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY UPDATE rowmill.batches b SET pruning = b.pruning | p_bits, parts = b.parts & ~p_bits, pruned_rows = 0, pruning_until = rowmill.later(p_at, p_ttl),
        files_pruned_at = CASE WHEN p_bits & 1 <> 0 THEN coalesce(b.files_pruned_at, p_at) ELSE b.files_pruned_at END,
        inputs_pruned_at = CASE WHEN p_bits & 2 <> 0 THEN coalesce(b.inputs_pruned_at, p_at) ELSE b.inputs_pruned_at END,
        outcomes_pruned_at = CASE WHEN p_bits & 4 <> 0 THEN coalesce(b.outcomes_pruned_at, p_at) ELSE b.outcomes_pruned_at END
    WHERE b.batch_key = p_batch_key RETURNING b.batch_id, b.pruning::int;
END
$$;

-- Takes up a batch whose pruning was left in the middle.
CREATE FUNCTION rowmill.resume_prune(p_ttl bigint, p_now bigint) RETURNS TABLE (batch_id uuid, pruning int) LANGUAGE plpgsql VOLATILE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
BEGIN
    RETURN QUERY UPDATE rowmill.batches b SET pruning_until = rowmill.later(at, p_ttl) WHERE b.batch_key = (
        SELECT c.batch_key FROM rowmill.batches c WHERE c.pruning <> 0 AND c.pruning_until <= at ORDER BY c.batch_key LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING b.batch_id, b.pruning::int;
END
$$;

-- Objects that are to be removed. Those that other batches have, too, are only forgotten.
CREATE FUNCTION rowmill.list_pruned_objects(p_batch_id uuid, p_limit int) RETURNS SETOF text LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    batch record;
BEGIN
    SELECT b.batch_key, b.pruning INTO batch FROM rowmill.batches b WHERE b.batch_id = p_batch_id AND b.pruning <> 0;
    IF NOT FOUND THEN RETURN; END IF;
    RETURN QUERY SELECT o.object FROM (
        SELECT f.object FROM rowmill.output_files f WHERE f.batch_key = batch.batch_key AND f.object IS NOT NULL AND batch.pruning & 1 <> 0
        UNION ALL
        SELECT f.object FROM rowmill.past_files f WHERE f.batch_key = batch.batch_key AND batch.pruning & 1 <> 0
        UNION ALL
        SELECT f.object FROM rowmill.batch_files f WHERE f.batch_key = batch.batch_key AND f.object IS NOT NULL AND batch.pruning & 2 <> 0
            AND NOT EXISTS (SELECT FROM rowmill.batch_files g WHERE g.object = f.object AND g.batch_key <> f.batch_key)) o LIMIT p_limit;
END
$$;

-- Forgets these objects, and those that other batches have. Whether some are left. Those who forget take turns: of two batches with the same object one finds that it
-- is the last.
CREATE FUNCTION rowmill.forget_objects(p_batch_id uuid, p_objects text[]) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    batch record;
BEGIN
    PERFORM pg_advisory_xact_lock(7881403276);
    SELECT b.batch_key, b.pruning INTO batch FROM rowmill.batches b WHERE b.batch_id = p_batch_id AND b.pruning <> 0;
    IF NOT FOUND THEN RETURN false; END IF;
    IF batch.pruning & 1 <> 0 THEN
        UPDATE rowmill.output_files f SET object = NULL WHERE f.batch_key = batch.batch_key AND f.object = ANY (p_objects);
        DELETE FROM rowmill.past_files f WHERE f.batch_key = batch.batch_key AND f.object = ANY (p_objects);
    END IF;
    IF batch.pruning & 2 <> 0 THEN
        UPDATE rowmill.batch_files f SET object = NULL WHERE f.batch_key = batch.batch_key AND f.object IS NOT NULL AND (f.object = ANY (p_objects)
            OR EXISTS (SELECT FROM rowmill.batch_files g WHERE g.object = f.object AND g.batch_key <> f.batch_key));
    END IF;
    RETURN rowmill.has_pruned_objects(batch.batch_key, batch.pruning::int);
END
$$;

CREATE FUNCTION rowmill.has_pruned_objects(p_batch_key bigint, p_pruning int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (p_pruning & 1 <> 0 AND EXISTS (SELECT FROM rowmill.output_files f WHERE f.batch_key = p_batch_key AND f.object IS NOT NULL))
        OR (p_pruning & 1 <> 0 AND EXISTS (SELECT FROM rowmill.past_files f WHERE f.batch_key = p_batch_key))
        OR (p_pruning & 2 <> 0 AND EXISTS (SELECT FROM rowmill.batch_files f WHERE f.batch_key = p_batch_key AND f.object IS NOT NULL));
END
$$;

-- Goes through the next rows of a batch and removes what is being pruned of them; behind the last one the batch itself, where it is to go. Nobody else locks what it
-- removes: the batch is done.
CREATE FUNCTION rowmill.prune_rows(p_batch_id uuid, p_rows int, p_ttl bigint, p_now bigint, OUT went_through int, OUT is_left boolean) LANGUAGE plpgsql VOLATILE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    batch record;
    first int;
    last int;
    events_left boolean := false;
BEGIN
    went_through := 0;
    is_left := false;
    SELECT b.* INTO batch FROM rowmill.batches b WHERE b.batch_id = p_batch_id AND b.pruning <> 0 FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    first := batch.pruned_rows;
    last := CASE WHEN batch.pruning & 22 = 0 THEN batch.row_count ELSE least(first::bigint + p_rows, batch.row_count) END;
    IF batch.pruning & 24 <> 0 THEN
        DELETE FROM rowmill.batch_events e WHERE e.batch_key = batch.batch_key AND e.seq IN (
            SELECT f.seq FROM rowmill.batch_events f WHERE f.batch_key = batch.batch_key ORDER BY f.seq LIMIT p_rows);
        events_left := EXISTS (SELECT FROM rowmill.batch_events e WHERE e.batch_key = batch.batch_key);
    END IF;
    IF batch.pruning & 4 <> 0 THEN
        DELETE FROM rowmill.outcomes o WHERE o.batch_key = batch.batch_key AND o.row_no > first AND o.row_no <= last;
        DELETE FROM rowmill.past_outcomes o WHERE o.batch_key = batch.batch_key AND o.row_no > first AND o.row_no <= last;
    END IF;
    IF batch.pruning & 16 <> 0 THEN
        IF NOT batch.lines_ascend THEN
            DELETE FROM rowmill.line_order l USING rowmill.rows r
            WHERE r.batch_key = batch.batch_key AND r.row_no > first AND r.row_no <= last AND l.batch_key = r.batch_key AND l.line = r.line;
        END IF;
        DELETE FROM rowmill.rows r WHERE r.batch_key = batch.batch_key AND r.row_no > first AND r.row_no <= last;
    ELSIF batch.pruning & 2 <> 0 THEN
        UPDATE rowmill.rows r SET input = '', rejected = NULL WHERE r.batch_key = batch.batch_key AND r.row_no > first AND r.row_no <= last AND r.input <> '';
    END IF;
    IF batch.pruning & 22 <> 0 THEN went_through := last - first; END IF;
    is_left := last < batch.row_count OR events_left OR rowmill.has_pruned_objects(batch.batch_key, batch.pruning::int);
    IF is_left THEN
        UPDATE rowmill.batches b SET pruned_rows = last, pruning_until = rowmill.later(at, p_ttl) WHERE b.batch_key = batch.batch_key;
    ELSIF batch.pruning & 16 = 0 THEN
        UPDATE rowmill.batches b SET pruning = 0, pruned_rows = 0, pruning_until = NULL WHERE b.batch_key = batch.batch_key;
    ELSE
        -- What is left of leases and retries is nothing any more, and nobody works under it.
        DELETE FROM rowmill.leases l WHERE l.batch_key = batch.batch_key;
        DELETE FROM rowmill.retries r WHERE r.batch_key = batch.batch_key;
        DELETE FROM rowmill.output_files f WHERE f.batch_key = batch.batch_key;
        DELETE FROM rowmill.batch_files f WHERE f.batch_key = batch.batch_key;
        DELETE FROM rowmill.past_rounds p WHERE p.batch_key = batch.batch_key;
        DELETE FROM rowmill.batches b WHERE b.batch_key = batch.batch_key;
    END IF;
END
$$;
