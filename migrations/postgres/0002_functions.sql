-- Claims and records are functions: each is one statement, and so one round trip, and holds its locks only while the database works on it. A worker that
-- stands still between two statements would keep them.
--
-- plan_cache_mode: the database would plan most statements of a function at each call, which takes longer than they do. For the same reason no function with a
-- statement of its own is in SQL: the plans of these are not kept.
--
-- p_now is NULL but in tests: then the time is the database's, one for all machines.
--
-- Who waits for whom: claims wait for each other (an advisory lock), and for a batch only while they hold nothing else. Records lock their lease, then the
-- batch, last. Whoever locks a batch first never waits for a lease. So nobody waits in a circle.

CREATE FUNCTION rowmill.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- A moment and so many milliseconds; saturates.
CREATE FUNCTION rowmill.later(p_at bigint, p_ms bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_ms > 9223372036854775807 - p_at THEN 9223372036854775807 ELSE p_at + p_ms END
$$;

-- A token is made by chance and not counted: claims commit asynchronously, and after a crash of the database a counter could give a token again whose first
-- owner still works under it.
CREATE FUNCTION rowmill.new_token() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint
$$;

-- Lets a held batch that has rows be claimed. Returns its status and rows as they are then; nothing when it is unknown.
CREATE FUNCTION rowmill.release_batch(p_batch_id uuid, OUT status text, OUT row_count int) RETURNS SETOF record LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    batch record;
BEGIN
    SELECT b.* INTO batch FROM rowmill.batches b WHERE b.batch_id = p_batch_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    status := batch.status;
    row_count := batch.row_count;
    IF status = 'wait' AND row_count > 0 THEN
        UPDATE rowmill.batches b SET status = 'queued', fresh = true WHERE b.batch_key = batch.batch_key;
        PERFORM pg_notify('rowmill', batch.kind || ' ' || batch.app);
        status := 'queued';
    END IF;
    RETURN NEXT;
END
$$;

-- As many rows as in lease_rows of the runtime (store/sizing.rs); both pass the same tests.
CREATE FUNCTION rowmill.lease_rows(p_row_micros bigint, p_remaining bigint, p_slots bigint, p_target_micros bigint, p_rows_max bigint)
RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(1, least(p_rows_max, p_remaining, CASE
        WHEN p_row_micros IS NULL THEN least((p_remaining + greatest(p_slots, 1) - 1) / greatest(p_slots, 1), 100)
        ELSE least(p_target_micros / greatest(p_row_micros, 1),
                   greatest((p_remaining + greatest(p_slots, 1) - 1) / greatest(p_slots, 1), 10000 / greatest(p_row_micros, 1)))
    END))::int
$$;

CREATE FUNCTION rowmill.insert_lease(
    p_batch_key bigint, p_app text, p_kind text, p_worker text, p_retries boolean, p_first int, p_last int, p_crashes int, p_charged bigint, p_expires bigint,
    OUT lease_id bigint, OUT token bigint
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO rowmill.leases AS l (batch_key, app, kind, token, worker, retries, next_row, last_row, crashes, charged_micros, expires_at)
    VALUES (p_batch_key, p_app, p_kind, rowmill.new_token(), p_worker, p_retries, p_first, p_last, p_crashes, p_charged, p_expires)
    RETURNING l.lease_id, l.token INTO lease_id, token;
END
$$;

-- A lease that was given back, or whose owner went silent; its first rows, when it has more than this worker may get.
CREATE FUNCTION rowmill.take_over(p_app text, p_kind text, p_worker text, p_rows_max int, p_now bigint, p_expires bigint,
    OUT lease_id bigint, OUT token bigint, OUT batch_id uuid, OUT row_count int, OUT crashes int
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    ended record;
    most int;
    rest int;
BEGIN
    SELECT l.*, b.batch_id AS id INTO ended FROM rowmill.leases l
    CROSS JOIN LATERAL (SELECT b.batch_id FROM rowmill.batches b WHERE b.batch_key = l.batch_key AND b.step = 'rows' LIMIT 1) b
    WHERE l.app = p_app AND l.kind = p_kind AND l.expires_at <= p_now
    ORDER BY l.expires_at, l.lease_id LIMIT 1 FOR UPDATE OF l SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    batch_id := ended.id;
    crashes := ended.crashes + (ended.token <> 0)::int;
    IF ended.retries AND ended.token <> 0 THEN
        UPDATE rowmill.retries r SET attempt = r.attempt + 1 WHERE r.lease_id = ended.lease_id;
    END IF;
    -- After two crashes row by row, to find the one that kills workers.
    most := CASE WHEN crashes >= 2 THEN 1 ELSE greatest(p_rows_max, 1) END;
    IF ended.retries THEN
        SELECT r.row_no INTO rest FROM rowmill.retries r WHERE r.lease_id = ended.lease_id ORDER BY r.row_no LIMIT 1 OFFSET most;
    ELSIF ended.next_row::bigint + most <= ended.last_row THEN
        rest := ended.next_row + most;
    END IF;
    IF rest IS NOT NULL THEN
        SELECT n.lease_id, n.token INTO lease_id, token FROM rowmill.insert_lease(ended.batch_key, ended.app, ended.kind, p_worker, ended.retries,
            CASE WHEN ended.retries THEN 0 ELSE ended.next_row END, CASE WHEN ended.retries THEN 0 ELSE rest - 1 END, crashes, 0, p_expires) n;
        UPDATE rowmill.leases l SET token = 0, worker = '', next_row = CASE WHEN ended.retries THEN 0 ELSE rest END, crashes = take_over.crashes, expires_at = 0
        WHERE l.lease_id = ended.lease_id;
        IF ended.retries THEN
            UPDATE rowmill.retries r SET lease_id = take_over.lease_id WHERE r.lease_id = ended.lease_id AND r.row_no < rest;
        END IF;
        row_count := most;
        RETURN;
    END IF;
    lease_id := ended.lease_id;
    token := rowmill.new_token();
    UPDATE rowmill.leases l SET token = take_over.token, worker = p_worker, crashes = take_over.crashes, expires_at = p_expires
    WHERE l.lease_id = ended.lease_id;
    IF ended.retries THEN
        SELECT count(*) INTO row_count FROM rowmill.retries r WHERE r.lease_id = ended.lease_id;
    ELSE
        row_count := ended.last_row - ended.next_row + 1;
    END IF;
END
$$;

-- Apps at their limit: they get no lease.
CREATE FUNCTION rowmill.full_apps(p_now bigint) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(a.app), '{}') FROM rowmill.apps a
        JOIN (SELECT l.app, count(*) AS running FROM rowmill.leases l WHERE l.token <> 0 AND l.expires_at > p_now GROUP BY l.app) r USING (app)
        WHERE r.running >= a.running_max);
END
$$;

-- Kinds and apps that have something to lease (source 0: leases that ended, 1: retries that are due, 2: fresh rows), each with what comes first by priority, then age. Jumps from app to app: the number of batches does not matter.
CREATE FUNCTION rowmill.apps_with_work(p_now bigint) RETURNS TABLE (source int, kind text, app text, priority int, batch_key bigint)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE fresh AS (
        (SELECT b.kind, b.app, b.priority, b.batch_key FROM rowmill.batches b WHERE b.fresh
         ORDER BY b.kind, b.app, b.priority DESC, b.batch_key LIMIT 1)
        UNION ALL
        SELECT n.* FROM fresh f CROSS JOIN LATERAL (
            SELECT b.kind, b.app, b.priority, b.batch_key FROM rowmill.batches b WHERE b.fresh AND (b.kind, b.app) > (f.kind, f.app)
            ORDER BY b.kind, b.app, b.priority DESC, b.batch_key LIMIT 1) n
    ), again AS (
        (SELECT r.kind, r.app FROM rowmill.retries r WHERE r.lease_id IS NULL ORDER BY r.kind, r.app LIMIT 1)
        UNION ALL
        SELECT n.* FROM again f CROSS JOIN LATERAL (
            SELECT r.kind, r.app FROM rowmill.retries r WHERE r.lease_id IS NULL AND (r.kind, r.app) > (f.kind, f.app)
            ORDER BY r.kind, r.app LIMIT 1) n
    )
    SELECT 2, f.* FROM fresh f
    UNION ALL
    SELECT 1, a.kind, a.app, d.priority, d.batch_key FROM again a CROSS JOIN LATERAL (
        SELECT b.priority, b.batch_key FROM rowmill.retries r
        CROSS JOIN LATERAL (SELECT * FROM rowmill.batches b WHERE b.batch_key = r.batch_key AND b.step = 'rows' LIMIT 1) b
        WHERE r.lease_id IS NULL AND r.kind = a.kind AND r.app = a.app AND r.due_at <= p_now ORDER BY r.due_at LIMIT 1) d
    UNION ALL
    SELECT 0, l.kind, l.app, b.priority, b.batch_key FROM rowmill.leases l
    CROSS JOIN LATERAL (SELECT * FROM rowmill.batches b WHERE b.batch_key = l.batch_key AND b.step = 'rows' LIMIT 1) b
    WHERE l.expires_at <= p_now
$$;

-- Pages of a batch are found by functions of their own, which go along an index whatever the database thinks of its tables: where it thinks that there is little
-- left, it would sort all the rest of the batch for each page. (What is off costs it so much that it would compile each query, which takes longer than the query.)

-- The rows of a lease that is still held, with the bytes of their inputs bounded: one row at least. Nothing when it is lost. Inputs stand behind each other, since an
-- array costs more for each; between them is a character that JSON cannot hold. Rows are numbered from first_row on unless row_nos says otherwise.
CREATE FUNCTION rowmill.read_leased_rows(p_lease bigint, p_token bigint, p_now bigint, p_bytes_max bigint)
RETURNS TABLE (first_row int, row_nos int[], lines bigint[], inputs text, rejected text[], attempt int, attempts int[]) LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    lease record;
    page_end int;
BEGIN
    SELECT l.*, b.input_bytes_max INTO lease FROM rowmill.leases l JOIN rowmill.batches b USING (batch_key)
    WHERE l.lease_id = p_lease AND l.token = p_token AND l.expires_at > coalesce(p_now, rowmill.now_ms()) AND b.step = 'rows';
    IF NOT FOUND THEN RETURN; END IF;
    IF lease.retries THEN
        RETURN QUERY SELECT 0, array_agg(p.row_no), array_agg(p.line), string_agg(p.input, E'\x1e'), array_agg(p.rejected), 0, array_agg(p.attempt) FROM (
            SELECT a.*, sum(octet_length(a.input)) OVER (ORDER BY a.row_no) - octet_length(a.input) AS bytes_before FROM (
                SELECT w.row_no, w.line, w.input, w.rejected, r.attempt FROM rowmill.retries r JOIN rowmill.rows w USING (batch_key, row_no)
                WHERE r.lease_id = p_lease) a ORDER BY a.row_no) p
        WHERE p.bytes_before < p_bytes_max;
        RETURN;
    END IF;
    page_end := lease.last_row;
    IF (lease.last_row - lease.next_row + 1) * lease.input_bytes_max::bigint > p_bytes_max THEN
        SELECT max(p.row_no) INTO page_end FROM (
            SELECT w.row_no, sum(octet_length(w.input)) OVER (ORDER BY w.row_no) - octet_length(w.input) AS bytes_before
            FROM rowmill.rows w WHERE w.batch_key = lease.batch_key AND w.row_no BETWEEN lease.next_row AND lease.last_row) p
        WHERE p.bytes_before < p_bytes_max;
    END IF;
    RETURN QUERY SELECT lease.next_row, NULL::int[], array_agg(p.line), string_agg(p.input, E'\x1e'),
        CASE WHEN count(p.rejected) > 0 THEN array_agg(p.rejected) END, 1 + lease.crashes, NULL::int[]
    FROM (SELECT w.line, w.input, w.rejected FROM rowmill.rows w
        WHERE w.batch_key = lease.batch_key AND w.row_no BETWEEN lease.next_row AND page_end ORDER BY w.row_no) p;
END
$$;

-- A page of pieces of a batch whose lines grow: rows with pieces behind a row, from the next one on, with the bytes of their pieces bounded: one row at least. Nothing
-- when there are no more. The rows' files and pieces stand behind each other as their inputs do above.
CREATE FUNCTION rowmill.read_pieces(p_batch_key bigint, p_after bigint, p_limit bigint, p_bytes_max bigint)
RETURNS TABLE (row_nos int[], files text, pieces text) LANGUAGE plpgsql STABLE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    first bigint := (SELECT o.row_no FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no > p_after AND o.piece_files IS NOT NULL
        ORDER BY o.row_no LIMIT 1);
    page_end bigint := first + p_limit - 1;
BEGIN
    IF first IS NULL THEN RETURN; END IF;
    IF p_limit * (SELECT b.piece_bytes_max FROM rowmill.batches b WHERE b.batch_key = p_batch_key) > p_bytes_max THEN
        SELECT max(p.row_no) INTO page_end FROM (
            SELECT o.row_no, sum(octet_length(o.pieces)) OVER (ORDER BY o.row_no) - octet_length(o.pieces) AS bytes_before
            FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no BETWEEN first AND page_end AND o.piece_files IS NOT NULL) p
        WHERE p.bytes_before < p_bytes_max;
    END IF;
    RETURN QUERY SELECT array_agg(p.row_no), string_agg(p.piece_files, ' '), string_agg(p.pieces, E'\x1a3') FROM (
        SELECT o.row_no, o.piece_files, o.pieces FROM rowmill.outcomes o
        WHERE o.batch_key = p_batch_key AND o.row_no BETWEEN first AND page_end AND o.piece_files IS NOT NULL ORDER BY o.row_no) p;
END
$$;

CREATE FUNCTION rowmill.next_lines(p_batch_key bigint, p_line bigint, p_row_no bigint, p_limit bigint, p_with_pieces boolean)
RETURNS TABLE (line bigint, row_no int) LANGUAGE plpgsql STABLE SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    IF p_with_pieces THEN
        RETURN QUERY SELECT l.line, l.row_no FROM rowmill.line_order l
        CROSS JOIN LATERAL (SELECT FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no = l.row_no AND o.piece_files IS NOT NULL LIMIT 1) o
        WHERE l.batch_key = p_batch_key AND (l.line, l.row_no) > (p_line, p_row_no) ORDER BY l.line, l.row_no LIMIT p_limit;
    ELSE
        RETURN QUERY SELECT l.line, l.row_no FROM rowmill.line_order l
        WHERE l.batch_key = p_batch_key AND (l.line, l.row_no) > (p_line, p_row_no) ORDER BY l.line, l.row_no LIMIT p_limit;
    END IF;
END
$$;

-- Leases: fair shares between apps (start-time fair queueing over virtual time: Goyal, Vin and Cheng 1996), then priority, then age. An app that was idle may be
-- p_credit behind the others, so that its few rows go first. Within an app: leases that ended, then retries that are due, then fresh rows.
CREATE FUNCTION rowmill.claim_leases(p_worker text, p_leases_max int, p_rows_max int, p_slots bigint, p_target_micros bigint, p_ttl bigint, p_kind text,
    p_credit bigint, p_now bigint)
RETURNS TABLE (lease_id bigint, token bigint, batch_id uuid, row_count int, crashes int) LANGUAGE plpgsql VOLATILE
-- Along the indexes, whatever the database thinks of its tables: the time does not grow with what waits. For the same reason batches are looked up one by one.
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    ends bigint := rowmill.later(at, p_ttl);
    given int := 0;
    passed text[] := '{}';
    full_up text[];
    virtual bigint;
    chosen record;
    batch record;
    again boolean;
    taken int;
    cost bigint;
BEGIN
    -- A claim that a crash of the database undoes only makes its record fail.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(7881403275);
    -- What is left of batches that were aborted.
    DELETE FROM rowmill.leases l WHERE l.expires_at <= at AND (SELECT b.step <> 'rows' FROM rowmill.batches b WHERE b.batch_key = l.batch_key);
    IF EXISTS (SELECT FROM rowmill.charges) THEN
        WITH folded AS (DELETE FROM rowmill.charges RETURNING app, micros)
        UPDATE rowmill.apps a SET served_micros = a.served_micros + s.micros / a.weight
        FROM (SELECT app, sum(micros)::bigint AS micros FROM folded GROUP BY app) s WHERE a.app = s.app;
    END IF;
    SELECT s.served_micros INTO virtual FROM rowmill.schedule s;
    WHILE given < p_leases_max LOOP
        full_up := rowmill.full_apps(at);
        SELECT w.source, w.app, w.kind, greatest(coalesce(a.served_micros, 0), virtual - p_credit) AS start, coalesce(a.weight, 1) AS weight INTO chosen
        FROM rowmill.apps_with_work(at) w LEFT JOIN rowmill.apps a USING (app)
        WHERE (p_kind IS NULL OR w.kind = p_kind) AND w.app <> ALL (full_up) AND (w.kind || ' ' || w.app) <> ALL (passed)
        ORDER BY start, w.source, w.priority DESC, w.batch_key LIMIT 1;
        EXIT WHEN NOT FOUND;
        lease_id := NULL;
        cost := 0;
        IF chosen.source = 0 THEN
            SELECT t.* INTO lease_id, token, batch_id, row_count, crashes FROM rowmill.take_over(chosen.app, chosen.kind, p_worker, p_rows_max, at, ends) t;
        END IF;
        IF lease_id IS NULL THEN
            again := false;
            IF chosen.source < 2 THEN
                SELECT b.batch_key, b.batch_id, b.row_micros INTO batch FROM rowmill.retries r
                CROSS JOIN LATERAL (SELECT * FROM rowmill.batches b WHERE b.batch_key = r.batch_key AND b.step = 'rows' LIMIT 1) b
                WHERE r.lease_id IS NULL AND r.kind = chosen.kind AND r.app = chosen.app AND r.due_at <= at ORDER BY r.due_at LIMIT 1;
                again := FOUND;
            END IF;
            IF again THEN
                SELECT rowmill.lease_rows(batch.row_micros, count(*), p_slots, p_target_micros, p_rows_max) INTO taken FROM (
                    SELECT FROM rowmill.retries r WHERE r.batch_key = batch.batch_key AND r.lease_id IS NULL AND r.due_at <= at LIMIT p_rows_max * p_slots) r;
                cost := taken * coalesce(batch.row_micros, 1000);
                SELECT n.* INTO lease_id, token
                FROM rowmill.insert_lease(batch.batch_key, chosen.app, chosen.kind, p_worker, true, 0, 0, 0, cost, ends) n;
                UPDATE rowmill.retries r SET lease_id = claim_leases.lease_id WHERE r.batch_key = batch.batch_key AND r.row_no IN (
                    SELECT r.row_no FROM rowmill.retries r WHERE r.batch_key = batch.batch_key AND r.lease_id IS NULL AND r.due_at <= at
                    ORDER BY r.due_at, r.row_no LIMIT taken);
            ELSE
                SELECT b.* INTO batch FROM rowmill.batches b WHERE b.fresh AND b.kind = chosen.kind AND b.app = chosen.app
                ORDER BY b.priority DESC, b.batch_key LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
                IF NOT FOUND AND given = 0 THEN
                    -- All are being recorded, which takes no longer than a commit.
                    SELECT b.* INTO batch FROM rowmill.batches b WHERE b.fresh AND b.kind = chosen.kind AND b.app = chosen.app
                    ORDER BY b.priority DESC, b.batch_key LIMIT 1 FOR NO KEY UPDATE;
                END IF;
                IF FOUND THEN
                    taken := rowmill.lease_rows(batch.row_micros, batch.row_count - batch.next_row + 1, p_slots, p_target_micros, p_rows_max);
                    cost := taken * coalesce(batch.row_micros, 1000);
                    UPDATE rowmill.batches b SET next_row = batch.next_row + taken, status = 'inprog', started_at = coalesce(b.started_at, at),
                        fresh = batch.next_row + taken <= b.row_count
                    WHERE b.batch_key = batch.batch_key;
                    SELECT n.* INTO lease_id, token FROM rowmill.insert_lease(batch.batch_key, chosen.app, chosen.kind, p_worker, false, batch.next_row,
                        batch.next_row + taken - 1, 0, cost, ends) n;
                END IF;
            END IF;
            batch_id := batch.batch_id;
            row_count := taken;
            crashes := 0;
        END IF;
        IF lease_id IS NULL THEN
            passed := passed || (chosen.kind || ' ' || chosen.app);
            CONTINUE;
        END IF;
        given := given + 1;
        virtual := greatest(virtual, chosen.start);
        INSERT INTO rowmill.apps AS a (app, served_micros) VALUES (chosen.app, chosen.start + cost / chosen.weight)
        ON CONFLICT (app) DO UPDATE SET served_micros = chosen.start + cost / chosen.weight;
        RETURN NEXT;
    END LOOP;
    IF given > 0 THEN
        UPDATE rowmill.schedule SET served_micros = virtual WHERE served_micros <> virtual;
    END IF;
END
$$;

-- The oldest batch that has a step to do and that nobody does it for: one that waits (the first of each kind, along an index), or one whose time has come, since its worker
-- went silent or gave it back for later. Of these there are few.
CREATE FUNCTION rowmill.claim_finish(p_worker text, p_kind text, p_ttl bigint, p_now bigint)
RETURNS TABLE (batch_id uuid, step text, token bigint, attempt int) LANGUAGE plpgsql VOLATILE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    candidate record;
    chosen bigint;
BEGIN
    FOR candidate IN
        SELECT k.kind, f.submitted_at, f.batch_key, false AS timed
        FROM unnest(CASE WHEN p_kind IS NULL THEN ARRAY['batch', 'slow_query'] ELSE ARRAY[p_kind] END) k (kind) CROSS JOIN LATERAL (
            SELECT b.submitted_at, b.batch_key FROM rowmill.batches b WHERE b.step IN ('join', 'mark') AND b.finish_expires_at IS NULL AND b.kind = k.kind
            ORDER BY b.submitted_at, b.batch_key LIMIT 1) f
        UNION ALL
        SELECT b.kind, b.submitted_at, b.batch_key, true FROM rowmill.batches b
        WHERE b.finish_expires_at <= at AND (p_kind IS NULL OR b.kind = p_kind)
        ORDER BY submitted_at, batch_key
    LOOP
        -- Others may be about to take the same.
        IF candidate.timed THEN
            SELECT b.batch_key INTO chosen FROM rowmill.batches b
            WHERE b.batch_key = candidate.batch_key AND b.finish_expires_at <= at FOR NO KEY UPDATE SKIP LOCKED;
        ELSE
            SELECT b.batch_key INTO chosen FROM rowmill.batches b WHERE b.step IN ('join', 'mark') AND b.finish_expires_at IS NULL AND b.kind = candidate.kind
            ORDER BY b.submitted_at, b.batch_key LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN QUERY UPDATE rowmill.batches b SET finish_token = rowmill.new_token(), finish_worker = p_worker, finish_attempt = b.finish_attempt + 1,
        finish_expires_at = rowmill.later(at, p_ttl)
    WHERE b.batch_key = chosen
    RETURNING b.batch_id, b.step, b.finish_token, b.finish_attempt;
END
$$;

-- When the next batch can be claimed to be finished: 0 for at once, NULL when there is none.
CREATE FUNCTION rowmill.next_finish(p_kind text) RETURNS bigint LANGUAGE plpgsql STABLE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM unnest(CASE WHEN p_kind IS NULL THEN ARRAY['batch', 'slow_query'] ELSE ARRAY[p_kind] END) k (kind) CROSS JOIN LATERAL (
        SELECT FROM rowmill.batches b WHERE b.step IN ('join', 'mark') AND b.finish_expires_at IS NULL AND b.kind = k.kind
        ORDER BY b.submitted_at, b.batch_key LIMIT 1) f;
    IF FOUND THEN RETURN 0; END IF;
    RETURN (SELECT b.finish_expires_at FROM rowmill.batches b WHERE b.finish_expires_at IS NOT NULL AND (p_kind IS NULL OR b.kind = p_kind)
        ORDER BY b.finish_expires_at LIMIT 1);
END
$$;

-- Ends the step join: the files and the status of the batch are final. RM001 when the lease is lost; RM004 with the name of a file that no row wrote to.
CREATE FUNCTION rowmill.record_files(p_batch_id uuid, p_token bigint, p_now bigint, p_names text[], p_objects text[], p_sizes bigint[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    key bigint := (SELECT b.batch_key FROM rowmill.batches b WHERE b.batch_id = p_batch_id);
BEGIN
    -- What an abort left. Before the batch is locked: a record that holds one of these waits for the batch.
    DELETE FROM rowmill.retries r WHERE r.batch_key = key;
    UPDATE rowmill.batches b SET step = 'mark', finished_at = at, finish_token = NULL, finish_worker = NULL, finish_expires_at = NULL, finish_attempt = 0,
        status = CASE WHEN b.status = 'aborted' THEN b.status WHEN b.failed > 0 THEN 'failed' ELSE 'success' END
    WHERE b.batch_key = key AND b.step = 'join' AND b.finish_token = p_token AND b.finish_expires_at > at;
    IF NOT FOUND THEN RAISE 'the lease is lost' USING ERRCODE = 'RM001'; END IF;
    FOR i IN 1..cardinality(p_names) LOOP
        UPDATE rowmill.output_files f SET object = p_objects[i], size_bytes = p_sizes[i] WHERE f.batch_key = key AND f.name = p_names[i];
        IF NOT FOUND THEN RAISE 'no such file' USING ERRCODE = 'RM004', DETAIL = p_names[i]; END IF;
    END LOOP;
    PERFORM pg_notify('rowmill', 'final ' || p_batch_id);
END
$$;

-- The numbers of the files of a batch, new ones for new names; NULL when there would be too many.
CREATE FUNCTION rowmill.number_files(p_batch_key bigint, p_names text[], p_files_max int) RETURNS int[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known int;
    numbers int[];
BEGIN
    SELECT array_agg(f.file_no ORDER BY u.at) INTO numbers
    FROM unnest(p_names) WITH ORDINALITY u (name, at) LEFT JOIN rowmill.output_files f ON f.batch_key = p_batch_key AND f.name = u.name;
    IF array_position(numbers, NULL) IS NULL THEN RETURN numbers; END IF;
    -- Another record may be adding names.
    PERFORM FROM rowmill.batches b WHERE b.batch_key = p_batch_key FOR NO KEY UPDATE;
    SELECT count(*) INTO known FROM rowmill.output_files f WHERE f.batch_key = p_batch_key;
    INSERT INTO rowmill.output_files (batch_key, file_no, name)
    SELECT p_batch_key, known + row_number() OVER (ORDER BY u.at) - 1, u.name FROM unnest(p_names) WITH ORDINALITY u (name, at)
    WHERE NOT EXISTS (SELECT FROM rowmill.output_files f WHERE f.batch_key = p_batch_key AND f.name = u.name);
    SELECT count(*) INTO known FROM rowmill.output_files f WHERE f.batch_key = p_batch_key;
    IF known > p_files_max THEN RETURN NULL; END IF;
    SELECT array_agg(f.file_no ORDER BY u.at) INTO numbers
    FROM unnest(p_names) WITH ORDINALITY u (name, at) JOIN rowmill.output_files f ON f.batch_key = p_batch_key AND f.name = u.name;
    RETURN numbers;
END
$$;

-- Appends outcomes under the token of a lease that is still held. p_all are the rows of all results in order; p_rows are those that are final (NULL for all), and the
-- arrays behind it are about these; those of p_again are to be run again after so many milliseconds. An array may end early: NULL from there on. The characters of
-- p_piece_files number p_names. What cannot be recorded is an error with a code of its own: RM001 the lease is lost, RM002 the results are not those of the
-- lease's next rows (its detail is the row that was wanted), RM003 too many files. Where p_finisher is given, it gets the lease to finish the batch if these are its
-- last outcomes.
CREATE FUNCTION rowmill.record_results(p_lease bigint, p_token bigint, p_now bigint, p_took_micros bigint, p_fuel bigint, p_all int[],
    p_rows int[], p_failed boolean[], p_attempt int, p_attempts int[], p_fuels bigint[], p_outputs text[], p_messages text[], p_logs text[],
    p_again int[], p_again_attempts int[], p_again_ms bigint[],
    p_names text[], p_piece_files text[], p_pieces text[], p_piece_bytes_max int, p_files_max int, p_smoothing bigint, p_finisher text, p_finish_ttl bigint,
    OUT rows int, OUT successes int, OUT failures int, OUT ended boolean, OUT batch uuid, OUT next_step text, OUT finisher_token bigint) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    finals int[] := coalesce(p_rows, p_all);
    result_count int := cardinality(p_all);
    final_count int := cardinality(finals);
    failed_count int := cardinality(array_positions(p_failed, true));
    success_count int := final_count - failed_count;
    lease record;
    wanted int[];
    numbers int[];
    given text;
    stored text;
    gone boolean;
    -- A slow query without files is final with its record.
    at_once boolean;
    mean bigint := CASE WHEN result_count > 0 THEN greatest(p_took_micros / result_count, 1) END;
BEGIN
    SELECT l.* INTO lease FROM rowmill.leases l JOIN rowmill.batches b USING (batch_key)
    WHERE l.lease_id = p_lease AND l.token = p_token AND l.expires_at > at AND b.step = 'rows' FOR UPDATE OF l;
    IF NOT FOUND THEN RAISE 'the lease is lost' USING ERRCODE = 'RM001'; END IF;
    at_once := lease.kind = 'slow_query' AND cardinality(p_names) = 0;
    IF lease.retries THEN
        wanted := ARRAY(SELECT r.row_no FROM rowmill.retries r WHERE r.lease_id = p_lease ORDER BY r.row_no LIMIT result_count);
    ELSE
        wanted := ARRAY(SELECT generate_series(lease.next_row, least(lease.next_row::bigint + result_count - 1, lease.last_row)));
    END IF;
    IF wanted <> p_all THEN
        RAISE 'not the next rows' USING ERRCODE = 'RM002', DETAIL = coalesce((
            SELECT p.n::text || ' ' || coalesce(w.n::text, '') FROM unnest(p_all) WITH ORDINALITY p (n, at) LEFT JOIN unnest(wanted) WITH ORDINALITY w (n, at) USING (at)
            WHERE p.n IS DISTINCT FROM w.n ORDER BY at LIMIT 1), '');
    END IF;
    IF cardinality(p_names) > 0 THEN
        numbers := rowmill.number_files(lease.batch_key, p_names, p_files_max);
        IF numbers IS NULL THEN RAISE 'too many files' USING ERRCODE = 'RM003'; END IF;
        SELECT string_agg(chr(47 + u.at::int), '' ORDER BY u.at), string_agg(chr(48 + u.number), '' ORDER BY u.at) INTO given, stored
        FROM unnest(numbers) WITH ORDINALITY u (number, at);
    END IF;
    -- Unnested side by side in the list of what is selected: in FROM each array would be written to a table first.
    INSERT INTO rowmill.outcomes (batch_key, row_no, failed, attempt, fuel, output, messages, log, piece_files, pieces)
    SELECT lease.batch_key, u.row_no, u.failed, coalesce(u.attempt, p_attempt), u.fuel, u.output, u.messages, u.log,
        CASE WHEN given = stored THEN u.piece_files ELSE translate(u.piece_files, given, stored) END, u.pieces
    FROM (SELECT unnest(finals) AS row_no, unnest(p_failed) AS failed, unnest(p_attempts) AS attempt, unnest(p_fuels) AS fuel, unnest(p_outputs) AS output,
        unnest(p_messages) AS messages, unnest(p_logs) AS log, unnest(p_piece_files) AS piece_files, unnest(p_pieces) AS pieces) u;
    IF lease.retries THEN
        DELETE FROM rowmill.retries r WHERE r.lease_id = p_lease AND r.row_no = ANY (finals);
        UPDATE rowmill.retries r SET lease_id = NULL, attempt = u.attempt, due_at = rowmill.later(at, u.ms)
        FROM unnest(p_again, p_again_attempts, p_again_ms) u (row_no, attempt, ms) WHERE r.lease_id = p_lease AND r.row_no = u.row_no;
        gone := NOT EXISTS (SELECT FROM rowmill.retries r WHERE r.lease_id = p_lease);
    ELSE
        INSERT INTO rowmill.retries (batch_key, row_no, app, kind, attempt, due_at)
        SELECT lease.batch_key, u.row_no, lease.app, lease.kind, u.attempt, rowmill.later(at, u.ms)
        FROM unnest(p_again, p_again_attempts, p_again_ms) u (row_no, attempt, ms);
        gone := lease.next_row + result_count > lease.last_row;
    END IF;
    IF gone THEN
        DELETE FROM rowmill.leases l WHERE l.lease_id = p_lease;
        IF abs(lease.took_micros + p_took_micros - lease.charged_micros) > 20000 THEN
            INSERT INTO rowmill.charges (app, micros) VALUES (lease.app, lease.took_micros + p_took_micros - lease.charged_micros);
        END IF;
    ELSE
        UPDATE rowmill.leases l SET next_row = CASE WHEN l.retries THEN 0 ELSE l.next_row + result_count END, took_micros = l.took_micros + p_took_micros
        WHERE l.lease_id = p_lease;
    END IF;
    -- Last, so that the batch is locked no longer than a commit takes. Whoever records its last outcome finds that out here.
    UPDATE rowmill.batches b SET success = b.success + success_count, failed = b.failed + failed_count, fuel = b.fuel + p_fuel,
        piece_bytes_max = greatest(b.piece_bytes_max, p_piece_bytes_max),
        row_micros = coalesce((b.row_micros * (p_smoothing - 1) + mean) / p_smoothing, mean, b.row_micros),
        step = CASE WHEN b.success + b.failed + final_count < b.row_count THEN 'rows' WHEN at_once THEN 'mark' ELSE 'join' END,
        status = CASE WHEN NOT at_once OR final_count = 0 THEN b.status WHEN failed_count > 0 THEN 'failed' ELSE 'success' END,
        finished_at = CASE WHEN at_once AND final_count > 0 THEN at END,
        finish_token = CASE WHEN b.success + b.failed + final_count = b.row_count AND p_finisher IS NOT NULL THEN rowmill.new_token() END,
        finish_worker = CASE WHEN b.success + b.failed + final_count = b.row_count THEN p_finisher END,
        finish_expires_at = CASE WHEN b.success + b.failed + final_count = b.row_count AND p_finisher IS NOT NULL THEN rowmill.later(at, p_finish_ttl) END,
        finish_attempt = CASE WHEN b.success + b.failed + final_count = b.row_count AND p_finisher IS NOT NULL THEN 1 ELSE 0 END
    WHERE b.batch_key = lease.batch_key AND b.step = 'rows' AND b.status = 'inprog'
    RETURNING b.row_count, b.success, b.failed, b.step <> 'rows', b.batch_id, b.step, b.finish_token
        INTO rows, successes, failures, ended, batch, next_step, finisher_token;
    IF NOT FOUND THEN RAISE 'the batch was aborted' USING ERRCODE = 'RM001'; END IF;
    IF ended AND (at_once OR finisher_token IS NULL) THEN
        PERFORM pg_notify('rowmill', CASE WHEN at_once THEN 'final ' || batch ELSE 'work ' || lease.kind END);
    END IF;
END
$$;
