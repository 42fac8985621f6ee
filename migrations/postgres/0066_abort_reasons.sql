-- The reason of an abort for failed rows is stored with its numbers, and worded in one place (model/abort.rs). The rest of the function is that of 0005.
-- Appends outcomes under the token of a lease that is still held. p_all are the rows of all results in order; p_rows are those that are final (NULL for all), and the
-- arrays behind it are about these; those of p_again are to be run again after so many milliseconds. An array may end early: NULL from there on. The characters of
-- p_piece_files number p_names. What cannot be recorded is an error with a code of its own: RM001 the lease is lost, RM002 the results are not those of the
-- lease's next rows (its detail is the row that was wanted), RM003 too many files. Where p_finisher is given, it gets the lease to finish the batch if these are its
-- last outcomes. Where more rows have failed than may, the batch is aborted (stopped). RM007: the logs do not fit into what is left of the batch's (its detail); RM008: the same
-- of pieces, with what there may be. p_bounds is what the operator says of both (the default and the most of each); p_sums, p_codes and the buckets are what goes to usage_entries.
CREATE OR REPLACE FUNCTION rowmill.record_results(p_lease bigint, p_token bigint, p_now bigint, p_took_micros bigint, p_fuel bigint, p_all int[],
    p_rows int[], p_failed boolean[], p_attempt int, p_attempts int[], p_fuels bigint[], p_outputs text[], p_messages text[], p_logs text[],
    p_again int[], p_again_attempts int[], p_again_ms bigint[],
    p_names text[], p_piece_files text[], p_pieces text[], p_piece_bytes_max int, p_files_max int, p_smoothing bigint, p_finisher text, p_finish_ttl bigint,
    p_log_bytes bigint, p_logs_dropped bigint, p_file_bytes bigint, p_bounds bigint[], p_sums bigint[], p_codes text, p_buckets int[], p_bucket_rows bigint[],
    OUT rows int, OUT successes int, OUT failures int, OUT ended boolean, OUT batch uuid, OUT next_step text, OUT finisher_token bigint,
    OUT stopped boolean, OUT batch_round int) LANGUAGE plpgsql VOLATILE
-- Leases come and go: a look through all that were there takes longer than everything else.
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
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
    batch_version bigint;
    speed bigint;
    limit_rows bigint;
    limit_percent bigint;
    -- A slow query without files is final with its record.
    at_once boolean;
    own_quota json;
    log_max bigint;
    file_max bigint;
    logged bigint;
    filed bigint;
    mean bigint := CASE WHEN result_count > 0 THEN greatest(p_took_micros / result_count, 1) END;
BEGIN
    SELECT l.*, b.op, b.processor_version, b.log_bytes, b.file_bytes INTO lease FROM rowmill.leases l JOIN rowmill.batches b USING (batch_key)
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
    IF p_log_bytes > 0 OR p_file_bytes > 0 THEN
        own_quota := (SELECT a.quota::json FROM rowmill.apps a WHERE a.app = lease.app);
        log_max := least(coalesce((own_quota ->> 'batch_log_bytes')::bigint, p_bounds[1]), p_bounds[2]);
        file_max := least(coalesce((own_quota ->> 'batch_file_bytes')::bigint, p_bounds[3]), p_bounds[4]);
        IF p_log_bytes > 0 AND lease.log_bytes + p_log_bytes > log_max THEN
            RAISE 'the logs are too large' USING ERRCODE = 'RM007', DETAIL = greatest(log_max - lease.log_bytes, 0);
        ELSIF p_file_bytes > 0 AND lease.file_bytes + p_file_bytes > file_max THEN
            RAISE 'the files are too large' USING ERRCODE = 'RM008', DETAIL = format('%s %s', greatest(file_max - lease.file_bytes, 0), file_max);
        END IF;
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
        IF cardinality(p_again) > 0 THEN
            INSERT INTO rowmill.retries (batch_key, row_no, app, op, kind, attempt, due_at)
            SELECT lease.batch_key, u.row_no, lease.app, lease.op, lease.kind, u.attempt, rowmill.later(at, u.ms)
            FROM unnest(p_again, p_again_attempts, p_again_ms) u (row_no, attempt, ms);
        END IF;
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
    IF result_count > 0 THEN
        INSERT INTO rowmill.usage_entries (app, op, version, hour, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max,
            codes, buckets, bucket_rows)
        VALUES (lease.app, lease.op, lease.processor_version, at / 3600000, success_count, failed_count, p_sums[1], p_sums[2], p_sums[3], p_took_micros, p_sums[4],
            p_sums[5], p_file_bytes, p_sums[6], p_codes, p_buckets, p_bucket_rows);
    END IF;
    -- Last, so that the batch is locked no longer than a commit takes. Whoever records its last outcome finds that out here.
    UPDATE rowmill.batches b SET success = b.success + success_count, failed = b.failed + failed_count, fuel = b.fuel + p_fuel,
        piece_bytes_max = greatest(b.piece_bytes_max, p_piece_bytes_max),
        failed_row = CASE WHEN failed_count > 0 THEN finals[array_position(p_failed, true)] ELSE b.failed_row END,
        log_bytes = b.log_bytes + p_log_bytes, logs_dropped = b.logs_dropped + p_logs_dropped, file_bytes = b.file_bytes + p_file_bytes,
        row_micros = CASE WHEN b.success + b.failed = 0 THEN coalesce(mean, b.row_micros)
            ELSE coalesce((b.row_micros * (p_smoothing - 1) + mean) / p_smoothing, mean, b.row_micros) END,
        step = CASE WHEN b.success + b.failed + final_count < b.row_count THEN 'rows' WHEN at_once THEN 'mark' ELSE 'join' END,
        status = CASE WHEN NOT at_once OR final_count = 0 THEN b.status WHEN failed_count > 0 THEN 'failed' ELSE 'success' END,
        finished_at = CASE WHEN at_once AND final_count > 0 THEN at END,
        finish_token = CASE WHEN b.success + b.failed + final_count = b.row_count AND p_finisher IS NOT NULL THEN rowmill.new_token() END,
        finish_worker = CASE WHEN b.success + b.failed + final_count = b.row_count THEN p_finisher END,
        finish_expires_at = CASE WHEN b.success + b.failed + final_count = b.row_count AND p_finisher IS NOT NULL THEN rowmill.later(at, p_finish_ttl) END,
        finish_attempt = CASE WHEN b.success + b.failed + final_count = b.row_count AND p_finisher IS NOT NULL THEN 1 ELSE 0 END
    WHERE b.batch_key = lease.batch_key AND b.step = 'rows' AND b.status = 'inprog'
    RETURNING b.row_count, b.success, b.failed, b.step <> 'rows', b.batch_id, b.step, b.finish_token, b.processor_version, b.row_micros, b.failures_max, b.failures_percent, b.round, b.log_bytes, b.file_bytes
        INTO rows, successes, failures, ended, batch, next_step, finisher_token, batch_version, speed, limit_rows, limit_percent, batch_round, logged, filed;
    IF NOT FOUND THEN RAISE 'the batch was aborted' USING ERRCODE = 'RM001'; END IF;
    -- Another record was before this one.
    IF p_log_bytes > 0 AND logged > log_max THEN
        RAISE 'the logs are too large' USING ERRCODE = 'RM007', DETAIL = greatest(log_max - logged + p_log_bytes, 0);
    ELSIF p_file_bytes > 0 AND filed > file_max THEN
        RAISE 'the files are too large' USING ERRCODE = 'RM008', DETAIL = format('%s %s', greatest(file_max - filed + p_file_bytes, 0), file_max);
    END IF;
    -- More rows failed than may: what has not ended is not run.
    stopped := NOT ended AND (failures > limit_rows OR failures::bigint * 100 > limit_percent * rows) IS TRUE;
    IF stopped THEN
        UPDATE rowmill.batches b SET status = 'aborted', step = 'join', fresh = false, abort_reason = CASE
            WHEN limit_rows IS NOT NULL THEN json_build_object('rows_failed', json_build_object('failed', failures, 'limit', limit_rows))
            ELSE json_build_object('part_failed', json_build_object('failed', failures, 'rows', rows, 'limit', limit_percent)) END
        WHERE b.batch_key = lease.batch_key;
        PERFORM pg_notify('rowmill', 'aborted ' || batch), pg_notify('rowmill', 'work ' || lease.kind);
    END IF;
    -- The next batch begins with this speed. It is seldom another, and who is about to write it may.
    IF ended AND lease.kind = 'batch' THEN
        UPDATE rowmill.processors p SET row_micros = speed WHERE (p.app, p.op, p.version) = (
            SELECT q.app, q.op, q.version FROM rowmill.processors q WHERE q.app = lease.app AND q.op = lease.op AND q.version = batch_version
                AND (q.row_micros IS NULL OR q.row_micros NOT BETWEEN speed - speed / 4 AND speed + speed / 4)
            FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    IF ended AND (at_once OR finisher_token IS NULL) THEN
        PERFORM pg_notify('rowmill', CASE WHEN at_once THEN 'final ' || batch ELSE 'work ' || lease.kind END);
    END IF;
END
$$;
