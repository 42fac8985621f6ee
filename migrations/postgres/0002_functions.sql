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
CREATE FUNCTION rowmill.release_batch(p_batch_id uuid, OUT status text, OUT row_count int) RETURNS SETOF record LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    batch record;
BEGIN
    SELECT b.* INTO batch FROM rowmill.batches b WHERE b.batch_id = p_batch_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    status := batch.status;
    row_count := batch.row_count;
    IF status = 'wait' AND row_count > 0 AND batch.after_batch IS NULL THEN
        UPDATE rowmill.batches b SET status = 'queued', fresh = NOT b.deferred WHERE b.batch_key = batch.batch_key;
        PERFORM pg_notify('rowmill', CASE WHEN batch.deferred THEN 'work ' || batch.kind ELSE batch.kind || ' ' || batch.app END);
        status := 'queued';
    END IF;
    RETURN NEXT;
END
$$;
