-- Files that are appended in parts. The rows of an unfinished file stand behind the last row that its batch counts: no claim, release, quota of the batch or reader
-- takes them for rows of the batch. The last part counts them all at once; when there is no last part they are removed.
CREATE TABLE rowmill.open_appends (
    batch_key bigint PRIMARY KEY,
    token bigint NOT NULL,
    append_key text,
    row_count int NOT NULL,
    line_last bigint NOT NULL,
    lines_ascend boolean NOT NULL,
    input_bytes_max int NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
COMMENT ON COLUMN rowmill.open_appends.token IS 'of the process that appends: a part with another token is refused';
COMMENT ON COLUMN rowmill.open_appends.append_key IS 'the idempotency key of the append, NULL without one';
COMMENT ON COLUMN rowmill.open_appends.row_count IS 'rows of the batch and of the file so far; line_last, lines_ascend and input_bytes_max likewise';
COMMENT ON COLUMN rowmill.open_appends.expires_at IS 'each part moves it forward; after it others remove the rows';

CREATE TABLE rowmill.append_keys (
    batch_key bigint NOT NULL,
    append_key text COLLATE "C" NOT NULL,
    digest text NOT NULL,
    row_count int NOT NULL,
    PRIMARY KEY (batch_key, append_key)
);
COMMENT ON TABLE rowmill.append_keys IS 'appends with a key that were completed';
COMMENT ON COLUMN rowmill.append_keys.digest IS 'of the file';
COMMENT ON COLUMN rowmill.append_keys.row_count IS 'rows that the batch had then';

-- The last part counts the rows in the batch before it ends the append: then there are none to remove.
CREATE FUNCTION rowmill.take_back_rows() RETURNS trigger LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    batch record;
BEGIN
    SELECT b.row_count, b.lines_ascend INTO batch FROM rowmill.batches b WHERE b.batch_key = OLD.batch_key;
    IF FOUND AND batch.row_count < OLD.row_count THEN
        IF NOT OLD.lines_ascend THEN
            DELETE FROM rowmill.line_order l WHERE l.batch_key = OLD.batch_key AND (batch.lines_ascend OR l.row_no > batch.row_count);
        END IF;
        DELETE FROM rowmill.rows r WHERE r.batch_key = OLD.batch_key AND r.row_no > batch.row_count;
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER take_back_rows BEFORE DELETE ON rowmill.open_appends FOR EACH ROW EXECUTE FUNCTION rowmill.take_back_rows();

-- Whatever ends the hold (a release, an abort, a deadline) removes the rows of an unfinished file in its transaction.
CREATE FUNCTION rowmill.end_open_append() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM rowmill.open_appends o WHERE o.batch_key = OLD.batch_key;
    RETURN NULL;
END
$$;
CREATE TRIGGER end_open_append AFTER UPDATE OF status ON rowmill.batches FOR EACH ROW
WHEN (OLD.status = 'wait' AND NEW.status <> 'wait') EXECUTE FUNCTION rowmill.end_open_append();

CREATE FUNCTION rowmill.forget_appends() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM rowmill.open_appends o WHERE o.batch_key = OLD.batch_key;
    DELETE FROM rowmill.append_keys k WHERE k.batch_key = OLD.batch_key;
    RETURN NULL;
END
$$;
CREATE TRIGGER forget_appends AFTER DELETE ON rowmill.batches FOR EACH ROW EXECUTE FUNCTION rowmill.forget_appends();

-- As in 0040, but rows of unfinished files count as queued.
CREATE OR REPLACE FUNCTION rowmill.admit_rows(p_app text, p_new_batch bigint, p_rows bigint, p_total bigint, p_input_bytes bigint, p_default bigint[], p_most bigint[])
RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    given json := (SELECT a.quota::json FROM rowmill.apps a WHERE a.app = p_app);
    input_max bigint := least(coalesce((given ->> 'input_bytes')::bigint, p_default[1]), p_most[1]);
    rows_max bigint := least(coalesce((given ->> 'batch_rows')::bigint, p_default[2]), p_most[2]);
    queued_max bigint := least(coalesce((given ->> 'queued_rows')::bigint, p_default[3]), p_most[3]);
    turn bigint := hashtextextended(p_app, 7881403278);
    bound bigint;
    counted bigint;
BEGIN
    IF p_input_bytes > input_max THEN
        RAISE 'an input is too large' USING ERRCODE = 'RM006', DETAIL = format('input %s %s', p_input_bytes, input_max);
    ELSIF p_total > rows_max THEN
        RAISE 'too many rows' USING ERRCODE = 'RM006', DETAIL = format('rows %s %s', p_total, rows_max);
    END IF;
    IF p_rows = 0 THEN RETURN; END IF;
    SELECT coalesce(sum(q.rows), 0) INTO bound FROM rowmill.queues q WHERE q.app = p_app;
    IF p_rows <= queued_max / 1000 AND bound + p_rows <= queued_max / 2 THEN
        PERFORM pg_advisory_xact_lock_shared(turn);
    ELSE
        PERFORM pg_advisory_xact_lock(turn);
        SELECT coalesce(sum(q.rows), 0), coalesce(sum(q.rows) FILTER (WHERE q.slot = -1), 0) INTO bound, counted FROM rowmill.queues q WHERE q.app = p_app;
        IF bound + p_rows > (counted + queued_max) / 2 THEN
            SELECT coalesce(sum(b.row_count - b.success - b.failed), 0) INTO counted FROM rowmill.batches b
            WHERE b.app = p_app AND b.step = 'rows' AND b.batch_key IS DISTINCT FROM p_new_batch;
            counted := counted + (SELECT coalesce(sum(o.row_count - b.row_count), 0) FROM rowmill.open_appends o JOIN rowmill.batches b USING (batch_key) WHERE b.app = p_app);
            IF counted + p_rows > queued_max THEN
                RAISE 'too many rows are queued' USING ERRCODE = 'RM006', DETAIL = format('queued %s %s', counted + p_rows, queued_max);
            END IF;
            DELETE FROM rowmill.queues q WHERE q.app = p_app;
            INSERT INTO rowmill.queues (app, slot, rows) VALUES (p_app, -1, counted);
        END IF;
    END IF;
    INSERT INTO rowmill.queues AS q (app, slot, rows) VALUES (p_app, pg_backend_pid() % 64, p_rows) ON CONFLICT (app, slot) DO UPDATE SET rows = q.rows + p_rows;
END
$$;

-- As in 0003, but without the rows of an unfinished file: their lines may be lower than those of the batch, and a page of them alone would look like the end.
CREATE OR REPLACE FUNCTION rowmill.next_lines(p_batch_key bigint, p_line bigint, p_row_no bigint, p_limit bigint, p_with_pieces boolean)
RETURNS TABLE (line bigint, row_no int) LANGUAGE plpgsql STABLE SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    counted int := (SELECT b.row_count FROM rowmill.batches b WHERE b.batch_key = p_batch_key);
BEGIN
    IF p_with_pieces THEN
        RETURN QUERY SELECT l.line, l.row_no FROM rowmill.line_order l
        CROSS JOIN LATERAL (SELECT FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no = l.row_no AND o.piece_files IS NOT NULL LIMIT 1) o
        WHERE l.batch_key = p_batch_key AND (l.line, l.row_no) > (p_line, p_row_no) AND l.row_no <= counted ORDER BY l.line, l.row_no LIMIT p_limit;
    ELSE
        RETURN QUERY SELECT l.line, l.row_no FROM rowmill.line_order l
        WHERE l.batch_key = p_batch_key AND (l.line, l.row_no) > (p_line, p_row_no) AND l.row_no <= counted ORDER BY l.line, l.row_no LIMIT p_limit;
    END IF;
END
$$;
