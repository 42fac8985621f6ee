-- mark-done may be called several times in a round. What its calls logged, and how they failed, is kept.
ALTER TABLE rowmill.batches ADD COLUMN mark_calls int NOT NULL DEFAULT 0;
COMMENT ON COLUMN rowmill.batches.mark_calls IS 'calls of mark-done in this round that ended, or whose worker died; moved by the record of a call';
ALTER TABLE rowmill.past_rounds ADD COLUMN mark_calls int NOT NULL DEFAULT 0;
UPDATE rowmill.batches SET mark_calls = finish_attempt WHERE step = 'done';
UPDATE rowmill.past_rounds SET mark_calls = 1;

-- The calls that logged something or failed.
CREATE TABLE rowmill.mark_calls (
    batch_key bigint NOT NULL,
    round int NOT NULL,
    call int NOT NULL,
    ended_at bigint NOT NULL,
    error text,
    log text,
    log_dropped boolean NOT NULL,
    PRIMARY KEY (batch_key, round, call),
    CONSTRAINT a_log_is_kept_or_dropped CHECK (log IS NULL OR NOT log_dropped)
);
COMMENT ON COLUMN rowmill.mark_calls.call IS '1 for the first call in the round';
COMMENT ON COLUMN rowmill.mark_calls.error IS 'how the call failed';
COMMENT ON COLUMN rowmill.mark_calls.log_dropped IS 'its log did not fit into what the batch may log';

-- The step mark ends, or mark-done is to be called again (p_again milliseconds from now). A call is one that was made: p_called says so. Of two bounds for the bytes that a
-- batch may log the first holds for apps without a quota of their own, the second for all. False when the lease is lost.
CREATE FUNCTION rowmill.record_mark(p_batch_id uuid, p_token bigint, p_now bigint, p_called boolean, p_error text, p_log text, p_log_bytes bigint, p_again bigint,
    p_bounds bigint[]) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    batch record;
    own_max bigint;
    calls int;
    kept boolean;
BEGIN
    SELECT b.batch_key, b.app, b.round, b.mark_calls, b.finish_attempt, b.log_bytes INTO batch FROM rowmill.batches b
    WHERE b.batch_id = p_batch_id AND b.step = 'mark' AND b.finish_token = p_token AND b.finish_expires_at > at FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN false; END IF;
    -- Claims that ended without a record were calls whose worker died.
    calls := batch.mark_calls + batch.finish_attempt - CASE WHEN p_called THEN 0 ELSE 1 END;
    IF p_log_bytes > 0 THEN
        own_max := (SELECT (a.quota::json ->> 'batch_log_bytes')::bigint FROM rowmill.apps a WHERE a.app = batch.app);
    END IF;
    kept := p_log_bytes = 0 OR batch.log_bytes + p_log_bytes <= least(coalesce(own_max, p_bounds[1]), p_bounds[2]);
    UPDATE rowmill.batches b SET step = CASE WHEN p_again IS NULL THEN 'done' ELSE 'mark' END, mark_error = p_error, mark_calls = calls,
        log_bytes = b.log_bytes + CASE WHEN p_called AND kept THEN p_log_bytes ELSE 0 END, finish_token = NULL, finish_worker = NULL,
        finish_expires_at = CASE WHEN p_again IS NOT NULL THEN rowmill.later(at, p_again) END,
        finish_attempt = CASE WHEN p_again IS NULL THEN b.finish_attempt ELSE 0 END
    WHERE b.batch_key = batch.batch_key;
    IF p_called AND (p_error IS NOT NULL OR p_log IS NOT NULL) THEN
        INSERT INTO rowmill.mark_calls (batch_key, round, call, ended_at, error, log, log_dropped)
        VALUES (batch.batch_key, batch.round, calls, at, p_error, CASE WHEN kept THEN p_log END, p_log IS NOT NULL AND NOT kept);
    END IF;
    RETURN true;
END
$$;

-- A retry of the batch begins with no calls; those of the round before stay with it. A retry inserts into past_rounds before it moves the round of the batch.
CREATE FUNCTION rowmill.begin_mark_calls() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.mark_calls := 0;
    RETURN NEW;
END
$$;
CREATE TRIGGER begin_mark_calls BEFORE UPDATE OF round ON rowmill.batches FOR EACH ROW WHEN (NEW.round <> OLD.round) EXECUTE FUNCTION rowmill.begin_mark_calls();
CREATE FUNCTION rowmill.keep_mark_calls() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.mark_calls := coalesce((SELECT b.mark_calls FROM rowmill.batches b WHERE b.batch_key = NEW.batch_key), 0);
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_mark_calls BEFORE INSERT ON rowmill.past_rounds FOR EACH ROW EXECUTE FUNCTION rowmill.keep_mark_calls();

-- They are pruned with the outcomes (bit 4 of the parts), as the logs of rows are.
CREATE FUNCTION rowmill.prune_mark_calls() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM rowmill.mark_calls m WHERE m.batch_key = NEW.batch_key;
    RETURN NULL;
END
$$;
CREATE TRIGGER prune_mark_calls AFTER UPDATE OF parts ON rowmill.batches FOR EACH ROW
WHEN (OLD.parts & 4 <> 0 AND NEW.parts & 4 = 0) EXECUTE FUNCTION rowmill.prune_mark_calls();
