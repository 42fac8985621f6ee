-- As many rows as in lease_rows of the runtime (store/sizing.rs); both pass the same tests.
CREATE FUNCTION rowmill.lease_rows(p_row_micros bigint, p_measured boolean, p_remaining bigint, p_slots bigint, p_target_micros bigint, p_rows_max bigint)
RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(1, least(p_rows_max, p_remaining, CASE WHEN NOT p_measured THEN 100 END, CASE
        WHEN p_row_micros IS NULL THEN (p_remaining + greatest(p_slots, 1) - 1) / greatest(p_slots, 1)
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

-- Before a lease is made: nobody takes its batch further (an abort above all) until the lease is there to be seen. False where somebody does so at this moment, or has; claims do not wait here.
CREATE FUNCTION rowmill.lock_to_lease(p_batch_key bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM rowmill.batches b WHERE b.batch_key = p_batch_key AND b.step = 'rows' FOR NO KEY UPDATE SKIP LOCKED;
    RETURN FOUND;
END
$$;

-- A lease that was given back, or whose owner went silent; its first rows, when it has more than this worker may get. None, and the batch, where others change that one
-- at this moment.
CREATE FUNCTION rowmill.take_over(p_app text, p_op text, p_kind text, p_worker text, p_rows_max int, p_now bigint, p_expires bigint,
    OUT lease_id bigint, OUT token bigint, OUT batch_id uuid, OUT row_count int, OUT crashes int, OUT held_up bigint
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    ended record;
    most int;
    rest int;
BEGIN
    SELECT l.*, b.batch_id AS id INTO ended FROM rowmill.leases l
    CROSS JOIN LATERAL (SELECT b.batch_id FROM rowmill.batches b WHERE b.batch_key = l.batch_key AND b.step = 'rows' AND b.op = p_op LIMIT 1) b
    WHERE l.app = p_app AND l.kind = p_kind AND l.expires_at <= p_now
    ORDER BY l.expires_at, l.lease_id LIMIT 1 FOR UPDATE OF l SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    crashes := ended.crashes + (ended.token <> 0)::int;
    -- After two crashes row by row, to find the one that kills workers.
    most := CASE WHEN crashes >= 2 THEN 1 ELSE greatest(p_rows_max, 1) END;
    IF ended.retries THEN
        SELECT r.row_no INTO rest FROM rowmill.retries r WHERE r.lease_id = ended.lease_id ORDER BY r.row_no LIMIT 1 OFFSET most;
    ELSIF ended.next_row::bigint + most <= ended.last_row THEN
        rest := ended.next_row + most;
    END IF;
    IF rest IS NOT NULL AND NOT rowmill.lock_to_lease(ended.batch_key) THEN
        held_up := ended.batch_key;
        RETURN;
    END IF;
    batch_id := ended.id;
    IF ended.retries AND ended.token <> 0 THEN
        UPDATE rowmill.retries r SET attempt = r.attempt + 1 WHERE r.lease_id = ended.lease_id;
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

-- What there is of a rate now, in billionths of rows; no more than its burst.
CREATE FUNCTION rowmill.tokens_now(p_rate_micros bigint, p_burst bigint, p_tokens bigint, p_refilled_at bigint, p_now bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT least(p_burst * 1000000000, p_tokens + p_rate_micros * least(greatest(p_now - p_refilled_at, 0), p_burst * 1000000000 / p_rate_micros + 1))
$$;

-- What there must be of a rate for a lease: work of a tenth of a second, since smaller leases would cost more than they run.
CREATE FUNCTION rowmill.tokens_wanted(p_rate_micros bigint, p_burst bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(least(p_rate_micros / 10000000, p_burst), 1) * 1000000000
$$;

-- How many rows of an operation may be leased at this moment, by what is said of its app and of itself: 0 when it is paused or has used up its rate, NULL for any number.
CREATE FUNCTION rowmill.rows_allowed(p_app text, p_op text, p_now bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT min(CASE WHEN p.paused THEN 0 WHEN t.tokens < rowmill.tokens_wanted(p.rate_micros, p.burst) THEN 0 ELSE t.tokens / 1000000000 END)
        FROM rowmill.policies p CROSS JOIN LATERAL (SELECT rowmill.tokens_now(p.rate_micros, p.burst, p.tokens, p.refilled_at, p_now) AS tokens) t
        WHERE p.app = p_app AND p.op IN ('', p_op) AND (p.paused OR p.rate_micros IS NOT NULL));
END
$$;

-- Operations with retries, each with that which is due first.
CREATE FUNCTION rowmill.ops_with_retries() RETURNS TABLE (kind text, app text, op text, due_at bigint, priority int, batch_key bigint)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE ops AS (
        (SELECT r.kind, r.app, r.op FROM rowmill.retries r WHERE r.lease_id IS NULL ORDER BY r.kind, r.app, r.op LIMIT 1)
        UNION ALL
        SELECT n.* FROM ops o CROSS JOIN LATERAL (
            SELECT r.kind, r.app, r.op FROM rowmill.retries r WHERE r.lease_id IS NULL AND (r.kind, r.app, r.op) > (o.kind, o.app, o.op)
            ORDER BY r.kind, r.app, r.op LIMIT 1) n
    )
    SELECT o.kind, o.app, o.op, d.due_at, d.priority, d.batch_key FROM ops o CROSS JOIN LATERAL (
        SELECT r.due_at, b.priority, b.batch_key FROM rowmill.retries r
        CROSS JOIN LATERAL (SELECT * FROM rowmill.batches b WHERE b.batch_key = r.batch_key AND b.step = 'rows' LIMIT 1) b
        WHERE r.lease_id IS NULL AND r.kind = o.kind AND r.app = o.app AND r.op = o.op ORDER BY r.due_at LIMIT 1) d
$$;

-- Operations that have something to lease (source 0: leases that ended, 1: retries that are due, 2: fresh rows), each with what comes first by priority, then age. Jumps from operation to operation: the number of batches does not matter.
CREATE FUNCTION rowmill.ops_with_work(p_now bigint) RETURNS TABLE (source int, kind text, app text, op text, priority int, batch_key bigint)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE fresh AS (
        (SELECT b.kind, b.app, b.op, b.priority, b.batch_key FROM rowmill.batches b WHERE b.fresh
         ORDER BY b.kind, b.app, b.op, b.priority DESC, b.batch_key LIMIT 1)
        UNION ALL
        SELECT n.* FROM fresh f CROSS JOIN LATERAL (
            SELECT b.kind, b.app, b.op, b.priority, b.batch_key FROM rowmill.batches b WHERE b.fresh AND (b.kind, b.app, b.op) > (f.kind, f.app, f.op)
            ORDER BY b.kind, b.app, b.op, b.priority DESC, b.batch_key LIMIT 1) n
    )
    SELECT 2, f.* FROM fresh f
    UNION ALL
    SELECT 1, r.kind, r.app, r.op, r.priority, r.batch_key FROM rowmill.ops_with_retries() r WHERE r.due_at <= p_now
    UNION ALL
    SELECT 0, l.kind, l.app, b.op, b.priority, b.batch_key FROM rowmill.leases l
    CROSS JOIN LATERAL (SELECT * FROM rowmill.batches b WHERE b.batch_key = l.batch_key AND b.step = 'rows' LIMIT 1) b
    WHERE l.expires_at <= p_now
$$;

-- Leases: fair shares between apps (start-time fair queueing over virtual time: Goyal, Vin and Cheng 1996), then priority, then age. An app that was idle may be
-- p_credit behind the others, so that its few rows go first. Those of p_except get nothing. What is paused, or has used up its rate, is passed over. Within an app: leases that ended, then retries that are due, then fresh rows.
-- A row of NULLs alone says that there is something, and that it is to be claimed again.
CREATE FUNCTION rowmill.claim_leases(p_worker text, p_leases_max int, p_rows_max int, p_slots bigint, p_target_micros bigint, p_ttl bigint, p_kind text,
    p_credit bigint, p_now bigint, p_except text[] DEFAULT '{}')
RETURNS TABLE (lease_id bigint, token bigint, batch_id uuid, row_count int, crashes int) LANGUAGE plpgsql VOLATILE
-- Along the indexes, whatever the database thinks of its tables: the time does not grow with what waits. For the same reason batches are looked up one by one.
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint;
    ends bigint;
    given int := 0;
    passed text[] := '{}';
    full_up text[];
    -- Something is paused or has a rate, which is seldom.
    limited boolean;
    most int;
    virtual bigint;
    chosen record;
    batch record;
    again boolean;
    -- A batch with fresh rows that is being recorded.
    held_up bigint;
    waited boolean := false;
    taken int;
    cost bigint;
BEGIN
    -- A claim that a crash of the database undoes only makes its record fail.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(7881403275);
    -- Not before: a claim that waited would find what another let begin meanwhile, and take it at a moment before its start.
    at := coalesce(p_now, rowmill.now_ms());
    ends := rowmill.later(at, p_ttl);
    -- What is left of batches that were aborted.
    DELETE FROM rowmill.leases l WHERE l.expires_at <= at AND (SELECT b.step <> 'rows' FROM rowmill.batches b WHERE b.batch_key = l.batch_key);
    -- What begins now. Others hold these batches no longer than a commit takes, and the next claim finds them.
    IF EXISTS (SELECT FROM rowmill.batches b WHERE b.deferred AND b.status = 'queued' AND b.start_at <= at) THEN
        UPDATE rowmill.batches b SET deferred = false, fresh = true WHERE b.batch_key IN (
            SELECT b.batch_key FROM rowmill.batches b WHERE b.deferred AND b.status = 'queued' AND b.start_at <= at
            ORDER BY b.start_at LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    IF EXISTS (SELECT FROM rowmill.charges) THEN
        WITH folded AS (DELETE FROM rowmill.charges RETURNING app, micros)
        UPDATE rowmill.apps a SET served_micros = a.served_micros + s.micros / a.weight
        FROM (SELECT app, sum(micros)::bigint AS micros FROM folded GROUP BY app) s WHERE a.app = s.app;
    END IF;
    SELECT s.served_micros INTO virtual FROM rowmill.schedule s;
    limited := EXISTS (SELECT FROM rowmill.policies p WHERE p.paused OR p.rate_micros IS NOT NULL);
    WHILE given < p_leases_max LOOP
        full_up := rowmill.full_apps(at) || p_except;
        SELECT w.source, w.app, w.op, w.kind, w.batch_key, w.allowed, greatest(coalesce(a.served_micros, 0), virtual - p_credit) AS start, coalesce(a.weight, 1) AS weight,
            count(*) OVER () = 1 AS alone INTO chosen
        FROM (SELECT o.*, CASE WHEN limited THEN rowmill.rows_allowed(o.app, o.op, at) END AS allowed FROM rowmill.ops_with_work(at) o) w
        LEFT JOIN rowmill.apps a USING (app)
        WHERE (p_kind IS NULL OR w.kind = p_kind) AND w.app <> ALL (full_up) AND ROW(w.kind, w.app, w.op)::text <> ALL (passed)
            AND w.allowed IS DISTINCT FROM 0
        ORDER BY start, w.source, w.priority DESC, w.batch_key LIMIT 1;
        IF NOT FOUND THEN
            EXIT WHEN given > 0 OR waited OR held_up IS NULL;
            -- All that is left is being recorded, which takes no longer than a commit. Where that is long, who waits behind this claim may have come for something else.
            BEGIN
                PERFORM set_config('lock_timeout', '5ms', true);
                PERFORM FROM rowmill.batches b WHERE b.batch_key = held_up FOR NO KEY UPDATE;
                PERFORM set_config('lock_timeout', '0', true);
            EXCEPTION WHEN lock_not_available THEN
                RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::uuid, NULL::int, NULL::int;
                RETURN;
            END;
            waited := true;
            passed := '{}';
            CONTINUE;
        END IF;
        lease_id := NULL;
        cost := 0;
        most := least(p_rows_max, chosen.allowed);
        IF chosen.source = 0 THEN
            SELECT t.lease_id, t.token, t.batch_id, t.row_count, t.crashes, coalesce(held_up, t.held_up) INTO lease_id, token, batch_id, row_count, crashes, held_up
            FROM rowmill.take_over(chosen.app, chosen.op, chosen.kind, p_worker, most, at, ends) t;
        END IF;
        IF lease_id IS NULL THEN
            again := false;
            IF chosen.source < 2 THEN
                SELECT b.batch_key, b.batch_id, b.status, b.row_micros, b.success + b.failed > 0 AS measured INTO batch FROM rowmill.retries r
                CROSS JOIN LATERAL (SELECT * FROM rowmill.batches b WHERE b.batch_key = r.batch_key AND b.step = 'rows' LIMIT 1) b
                WHERE r.lease_id IS NULL AND r.kind = chosen.kind AND r.app = chosen.app AND r.op = chosen.op AND r.due_at <= at ORDER BY r.due_at LIMIT 1;
                again := FOUND;
                IF again AND NOT rowmill.lock_to_lease(batch.batch_key) THEN
                    held_up := coalesce(held_up, batch.batch_key);
                    again := false;
                END IF;
                IF again AND batch.status = 'queued' THEN
                    -- A round begins, if none of its fresh rows began it just now.
                    UPDATE rowmill.batches b SET status = 'inprog', started_at = coalesce(b.started_at, at)
                    WHERE b.batch_key = batch.batch_key AND b.status = 'queued';
                END IF;
            END IF;
            IF again THEN
                SELECT rowmill.lease_rows(batch.row_micros, batch.measured, count(*), p_slots, p_target_micros, most) INTO taken FROM (
                    SELECT FROM rowmill.retries r WHERE r.batch_key = batch.batch_key AND r.lease_id IS NULL AND r.due_at <= at LIMIT p_rows_max * p_slots) r;
                cost := taken * coalesce(batch.row_micros, 1000);
                SELECT n.* INTO lease_id, token
                FROM rowmill.insert_lease(batch.batch_key, chosen.app, chosen.kind, p_worker, true, 0, 0, 0, cost, ends) n;
                UPDATE rowmill.retries r SET lease_id = claim_leases.lease_id WHERE r.batch_key = batch.batch_key AND r.row_no IN (
                    SELECT r.row_no FROM rowmill.retries r WHERE r.batch_key = batch.batch_key AND r.lease_id IS NULL AND r.due_at <= at
                    ORDER BY r.due_at, r.row_no LIMIT taken);
            ELSE
                SELECT b.* INTO batch FROM rowmill.batches b WHERE b.fresh AND b.kind = chosen.kind AND b.app = chosen.app AND b.op = chosen.op
                ORDER BY b.priority DESC, b.batch_key LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
                IF NOT FOUND THEN
                    held_up := coalesce(held_up, chosen.batch_key);
                ELSE
                    taken := rowmill.lease_rows(batch.row_micros, batch.success + batch.failed > 0, batch.row_count - batch.next_row + 1, p_slots,
                        p_target_micros, most);
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
            passed := passed || ROW(chosen.kind, chosen.app, chosen.op)::text;
            CONTINUE;
        END IF;
        given := given + 1;
        virtual := greatest(virtual, chosen.start);
        INSERT INTO rowmill.apps AS a (app, served_micros) VALUES (chosen.app, chosen.start + cost / chosen.weight)
        ON CONFLICT (app) DO UPDATE SET served_micros = chosen.start + cost / chosen.weight;
        IF chosen.allowed IS NOT NULL THEN
            UPDATE rowmill.policies p SET refilled_at = at,
                tokens = rowmill.tokens_now(p.rate_micros, p.burst, p.tokens, p.refilled_at, at) - row_count * 1000000000::bigint
            WHERE p.app = chosen.app AND p.op IN ('', chosen.op) AND p.rate_micros IS NOT NULL;
        END IF;
        RETURN NEXT;
        -- That was all, as it mostly is where little waits: a look at one index costs less than one for the next app.
        EXIT WHEN chosen.alone AND chosen.source = 2 AND NOT EXISTS (
            SELECT FROM rowmill.batches b WHERE b.fresh AND b.kind = chosen.kind AND b.app = chosen.app AND b.op = chosen.op);
    END LOOP;
    IF given > 0 THEN
        UPDATE rowmill.schedule SET served_micros = virtual WHERE served_micros <> virtual;
    END IF;
END
$$;

-- The same, and with each lease what its worker would read next: the batch, what its app may use, and the rows. What is large is left out, since claims wait for each other:
-- with_rows says whether the rows are there, and a context that is not is empty, which no JSON is.
CREATE FUNCTION rowmill.claim_work(p_worker text, p_leases_max int, p_rows_max int, p_slots bigint, p_target_micros bigint, p_ttl bigint, p_kind text,
    p_credit bigint, p_now bigint, p_bytes_max bigint, p_except text[] DEFAULT '{}')
RETURNS TABLE (lease_id bigint, token bigint, batch_id uuid, leased int, crashes int,
    app text, op text, kind text, priority bigint, processor_version bigint, processor_digest text, context text, attempts_max bigint, retry_rule text, start_at bigint,
    deadline_at bigint, failures_max bigint, failures_percent bigint, status text, step text, round int, after_batch uuid, after_condition text, group_name text,
    row_count int, success int, failed int, fuel bigint, submitted_at bigint, started_at bigint, weight bigint, running_max bigint, limits text, quota text, grants text,
    with_rows boolean, first_row int, row_nos int[], lines bigint[], inputs text, rejected text[], attempt int, attempts int[]) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    input_bytes_max bigint;
BEGIN
    FOR lease_id, token, batch_id, leased, crashes IN
        SELECT c.lease_id, c.token, c.batch_id, c.row_count, c.crashes
        FROM rowmill.claim_leases(p_worker, p_leases_max, p_rows_max, p_slots, p_target_micros, p_ttl, p_kind, p_credit, p_now, p_except) c
    LOOP
        SELECT b.app, b.op, b.kind, b.priority, b.processor_version, b.processor_digest, CASE WHEN octet_length(b.context) <= p_bytes_max THEN b.context ELSE '' END,
            b.attempts_max, b.retry_rule, b.start_at, b.deadline_at, b.failures_max, b.failures_percent, b.status, b.step, b.round, b.after_batch, b.after_condition, b.group_name, b.row_count, b.success, b.failed, b.fuel, b.submitted_at, b.started_at, a.weight, a.running_max, a.limits, a.quota, a.grants,
            b.input_bytes_max
        INTO app, op, kind, priority, processor_version, processor_digest, context, attempts_max, retry_rule, start_at, deadline_at, failures_max,
            failures_percent, status, step, round, after_batch, after_condition, group_name, row_count, success, failed, fuel, submitted_at,
            started_at, weight, running_max, limits, quota, grants, input_bytes_max
        FROM rowmill.batches b JOIN rowmill.apps a USING (app) WHERE b.batch_id = claim_work.batch_id;
        with_rows := leased * input_bytes_max <= p_bytes_max;
        IF with_rows THEN
            SELECT r.* INTO first_row, row_nos, lines, inputs, rejected, attempt, attempts
            FROM rowmill.read_leased_rows(claim_work.lease_id, claim_work.token, p_now, p_bytes_max) r;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Whether a slow query may be leased with its submission, to a worker that has a slot for it: no other waits, so that a claim would find nothing that comes before it; and nothing is said of its app that
-- claims count for. What is said of an app changes only while none of its queries comes in this way (lock_app).
CREATE FUNCTION rowmill.may_lease_at_once(p_app text, p_op text, p_now bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended(p_app, 7881403279));
    RETURN NOT (EXISTS (SELECT FROM rowmill.batches b WHERE b.fresh AND b.kind = 'slow_query')
        OR EXISTS (SELECT FROM rowmill.retries r WHERE r.lease_id IS NULL AND r.kind = 'slow_query')
        OR EXISTS (SELECT FROM rowmill.leases l WHERE l.expires_at <= p_now AND l.kind = 'slow_query')
        OR EXISTS (SELECT FROM rowmill.apps a WHERE a.app = p_app AND a.running_max IS NOT NULL)
        OR EXISTS (SELECT FROM rowmill.policies p WHERE p.app = p_app AND p.op IN ('', p_op) AND (p.paused OR p.rate_micros IS NOT NULL)));
END
$$;

-- Before a limit, a rate or a pause of an app is set.
CREATE FUNCTION rowmill.lock_app(p_app text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended(p_app, 7881403279))
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

-- How many milliseconds from now something can be claimed that cannot be now; 0 when it can, or when a batch is to be finished; NULL when nothing comes by itself.
CREATE FUNCTION rowmill.next_due(p_kind text, p_now bigint) RETURNS bigint LANGUAGE plpgsql STABLE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    full_up text[] := rowmill.full_apps(at);
    limited boolean := EXISTS (SELECT FROM rowmill.policies p WHERE p.paused OR p.rate_micros IS NOT NULL);
    next bigint;
BEGIN
    SELECT min(d.at) INTO next FROM (
        SELECT r.due_at AS at FROM rowmill.ops_with_retries() r
        WHERE (p_kind IS NULL OR r.kind = p_kind) AND r.app <> ALL (full_up) AND (NOT limited OR rowmill.rows_allowed(r.app, r.op, at) IS DISTINCT FROM 0)
        UNION ALL
        (SELECT l.expires_at FROM rowmill.leases l
         CROSS JOIN LATERAL (SELECT b.op FROM rowmill.batches b WHERE b.batch_key = l.batch_key AND b.step = 'rows' LIMIT 1) b
         WHERE (p_kind IS NULL OR l.kind = p_kind) AND (l.expires_at > at
            OR (l.app <> ALL (full_up) AND (NOT limited OR rowmill.rows_allowed(l.app, b.op, at) IS DISTINCT FROM 0)))
         ORDER BY l.expires_at LIMIT 1)
        UNION ALL
        (SELECT b.start_at FROM rowmill.batches b WHERE b.deferred AND b.status = 'queued' AND (p_kind IS NULL OR b.kind = p_kind)
         ORDER BY b.start_at LIMIT 1)
        UNION ALL
        -- When there is enough of a rate again, where something waits for that.
        SELECT at + (t.wanted - t.tokens + p.rate_micros - 1) / p.rate_micros FROM rowmill.policies p
        CROSS JOIN LATERAL (SELECT rowmill.tokens_now(p.rate_micros, p.burst, p.tokens, p.refilled_at, at) AS tokens,
            rowmill.tokens_wanted(p.rate_micros, p.burst) AS wanted) t
        WHERE p.rate_micros IS NOT NULL AND NOT p.paused AND t.tokens < t.wanted AND (
            EXISTS (SELECT FROM rowmill.ops_with_work(at) w WHERE (p_kind IS NULL OR w.kind = p_kind) AND w.app = p.app AND p.op IN ('', w.op))
            OR EXISTS (SELECT FROM rowmill.ops_with_retries() r WHERE (p_kind IS NULL OR r.kind = p_kind) AND r.app = p.app AND p.op IN ('', r.op)))
        UNION ALL
        -- Chained batches whose rows can be made.
        (SELECT at FROM rowmill.chains c WHERE c.ready AND coalesce(p_kind, 'batch') = 'batch' LIMIT 1)
        UNION ALL
        SELECT rowmill.next_finish(p_kind)) d;
    RETURN CASE WHEN next IS NOT NULL THEN greatest(next - at, 0) END;
END
$$;
