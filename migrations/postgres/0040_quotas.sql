-- What the batches of an app may hold.
ALTER TABLE rowmill.apps ADD COLUMN quota text;
COMMENT ON COLUMN rowmill.apps.quota IS 'what its batches may hold, as JSON, as far as it was given something; set by operators';

ALTER TABLE rowmill.batches ADD COLUMN log_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE rowmill.batches ADD COLUMN logs_dropped bigint NOT NULL DEFAULT 0;
ALTER TABLE rowmill.batches ADD COLUMN file_bytes bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN rowmill.batches.log_bytes IS 'bytes of the logs of its rows; moved in the transaction that appends the outcomes';
COMMENT ON COLUMN rowmill.batches.logs_dropped IS 'rows whose log did not fit; moved in the same';
COMMENT ON COLUMN rowmill.batches.file_bytes IS 'bytes of the pieces of its rows for output files; moved in the same';

-- Rows that an app may have queued are counted from its batches that have not ended; but not at each submission. What stands here is never less than the count: what was counted
-- last (slot -1), and what came in since (each connection has a slot, so that nobody waits for another). Rows that end do not move it.
CREATE TABLE rowmill.queues (
    app text COLLATE "C" NOT NULL,
    slot int NOT NULL,
    rows bigint NOT NULL,
    PRIMARY KEY (app, slot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
CREATE INDEX batches_open ON rowmill.batches (app) WHERE step = 'rows';

-- Lets rows come in, of a batch that has p_total then, if its app may hold them. RM006 if not; its detail is the limit, how much there would be, and how much there may be.
-- p_default and p_most are what the operator says of inputs, rows of a batch and queued rows.
--
-- Far from the limit submissions do not wait for each other: so many small ones cannot be under way at once that they would reach it. Near it they do, and whoever is
-- there counts when half of what was free at the last count may have come in.
CREATE FUNCTION rowmill.admit_rows(p_app text, p_new_batch bigint, p_rows bigint, p_total bigint, p_input_bytes bigint, p_default bigint[], p_most bigint[])
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
