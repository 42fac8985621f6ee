-- Groups: batches of an app that were submitted under a name. A group has ended when it is sealed and each of its batches is done. The transaction that makes it so finds that
-- out, and no other: it marks the group, once and for ever.
--
-- Who locks the row of a group, and how, to the end of its transaction:
--   who submits into it        FOR KEY SHARE          so nobody seals it meanwhile, and whoever comes after a seal sees that
--   who ends a batch of it     FOR NO KEY UPDATE      of the two that end the last ones, the second sees what the first has committed
--   who seals it               FOR UPDATE             waits for both
-- So who ends a batch never waits for who submits, whose transaction may be a caller's own and stand still. A batch is locked before its group, and nobody locks two groups.
ALTER TABLE rowmill.batches ADD COLUMN group_name text COLLATE "C";
COMMENT ON COLUMN rowmill.batches.group_name IS 'one of its app''s groups';
CREATE INDEX batches_by_group ON rowmill.batches (app, group_name, batch_key) WHERE group_name IS NOT NULL;
-- What a group waits for: so nobody counts.
CREATE INDEX batches_open_in_group ON rowmill.batches (app, group_name) WHERE group_name IS NOT NULL AND step <> 'done';

CREATE TABLE rowmill.groups (
    app text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    sealed_at bigint,
    ended_at bigint,
    PRIMARY KEY (app, name),
    CONSTRAINT only_what_is_sealed_has_ended CHECK (ended_at IS NULL OR sealed_at IS NOT NULL)
);
COMMENT ON TABLE rowmill.groups IS 'made by the first batch; goes with the last one, when it has ended';
COMMENT ON COLUMN rowmill.groups.sealed_at IS 'no batch comes in from then on';
COMMENT ON COLUMN rowmill.groups.ended_at IS 'when it was sealed or the last of its batches was final, whichever came later; set once, in the transaction after which none is open';

-- A batch comes into a group. Whether it is open.
CREATE FUNCTION rowmill.enter_group(p_app text, p_name text, p_now bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    open boolean;
BEGIN
    -- Nearly always it is there.
    SELECT g.sealed_at IS NULL INTO open FROM rowmill.groups g WHERE g.app = p_app AND g.name = p_name FOR KEY SHARE;
    WHILE NOT FOUND LOOP
        INSERT INTO rowmill.groups (app, name, created_at) VALUES (p_app, p_name, coalesce(p_now, rowmill.now_ms())) ON CONFLICT (app, name) DO NOTHING;
        SELECT g.sealed_at IS NULL INTO open FROM rowmill.groups g WHERE g.app = p_app AND g.name = p_name FOR KEY SHARE;
    END LOOP;
    RETURN open;
END
$$;

-- Marks a group as ended, if it has.
CREATE FUNCTION rowmill.end_group(p_app text, p_name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM rowmill.groups g WHERE g.app = p_app AND g.name = p_name FOR NO KEY UPDATE;
    -- A statement of its own: it sees what was committed before the lock was there.
    UPDATE rowmill.groups g SET ended_at = greatest(g.sealed_at, (SELECT max(b.finished_at) FROM rowmill.batches b WHERE b.app = p_app AND b.group_name = p_name))
    WHERE g.app = p_app AND g.name = p_name AND g.sealed_at IS NOT NULL AND g.ended_at IS NULL
        AND NOT EXISTS (SELECT FROM rowmill.batches b WHERE b.app = p_app AND b.group_name = p_name AND b.step <> 'done');
END
$$;

-- Lets no further batch come in. False when there is no such group.
CREATE FUNCTION rowmill.seal_group(p_app text, p_name text, p_now bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM rowmill.groups g WHERE g.app = p_app AND g.name = p_name FOR UPDATE;
    IF NOT FOUND THEN RETURN false; END IF;
    UPDATE rowmill.groups g SET sealed_at = coalesce(p_now, rowmill.now_ms()) WHERE g.app = p_app AND g.name = p_name AND g.sealed_at IS NULL;
    PERFORM rowmill.end_group(p_app, p_name);
    RETURN true;
END
$$;

-- Whatever ends a batch, or removes it, looks at its group.
CREATE FUNCTION rowmill.leave_group() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM rowmill.end_group(NEW.app, NEW.group_name);
    ELSIF OLD.step <> 'done' THEN
        -- It was held, and was discarded: nobody waits for it any more.
        PERFORM rowmill.end_group(OLD.app, OLD.group_name);
    ELSE
        PERFORM FROM rowmill.groups g WHERE g.app = OLD.app AND g.name = OLD.group_name FOR NO KEY UPDATE;
        DELETE FROM rowmill.groups g WHERE g.app = OLD.app AND g.name = OLD.group_name AND g.ended_at IS NOT NULL
            AND NOT EXISTS (SELECT FROM rowmill.batches b WHERE b.app = OLD.app AND b.group_name = OLD.group_name);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER end_group AFTER UPDATE OF step ON rowmill.batches FOR EACH ROW
WHEN (NEW.group_name IS NOT NULL AND NEW.step = 'done' AND OLD.step <> 'done') EXECUTE FUNCTION rowmill.leave_group();
CREATE TRIGGER leave_group AFTER DELETE ON rowmill.batches FOR EACH ROW WHEN (OLD.group_name IS NOT NULL) EXECUTE FUNCTION rowmill.leave_group();

-- From when on the time counts for which a batch is kept: from its end, or that of its group, if that is later. Not before its group has ended.
CREATE FUNCTION rowmill.kept_from(p_app text, p_group text, p_finished_at bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT greatest(g.ended_at, p_finished_at) FROM rowmill.groups g WHERE g.app = p_app AND g.name = p_group AND g.ended_at IS NOT NULL);
END
$$;

-- Takes up the oldest batch of an operation of which something was done at these moments or before (NULL for never): of the batches of a group only behind its end. Those of groups that have not ended are passed over one by one.
CREATE FUNCTION rowmill.begin_prune(p_app text, p_op text, p_files bigint, p_inputs bigint, p_outcomes bigint, p_events bigint, p_batches bigint, p_ttl bigint, p_now bigint)
RETURNS TABLE (batch_id uuid, pruning int) LANGUAGE plpgsql VOLATILE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    at bigint := coalesce(p_now, rowmill.now_ms());
    chosen record;
    kept_from bigint;
BEGIN
    SELECT d.* INTO chosen FROM generate_series(0, 15) m (parts) CROSS JOIN LATERAL (
        SELECT greatest(p_batches, CASE WHEN m.parts & 1 <> 0 THEN p_files END, CASE WHEN m.parts & 2 <> 0 THEN p_inputs END,
            CASE WHEN m.parts & 4 <> 0 THEN p_outcomes END, CASE WHEN m.parts & 8 <> 0 THEN p_events END) AS last) l CROSS JOIN LATERAL (
        SELECT b.batch_key, b.finished_at, b.group_name, b.parts::int FROM rowmill.batches b
        WHERE b.step = 'done' AND b.pruning = 0 AND b.app = p_app AND b.op = p_op AND b.parts = m.parts::smallint AND b.finished_at <= l.last
            AND (b.group_name IS NULL OR rowmill.kept_from(b.app, b.group_name, b.finished_at) <= l.last)
            -- Of its outcomes the rows of others are still to be made.
            AND NOT EXISTS (SELECT FROM rowmill.chains c WHERE c.first_key = b.batch_key)
        ORDER BY b.finished_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) d
    ORDER BY d.finished_at LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    kept_from := CASE WHEN chosen.group_name IS NULL THEN chosen.finished_at ELSE rowmill.kept_from(p_app, chosen.group_name, chosen.finished_at) END;
    RETURN QUERY SELECT m.* FROM rowmill.mark_pruned(chosen.batch_key, CASE WHEN kept_from <= p_batches THEN 16 | chosen.parts
        ELSE chosen.parts & (CASE WHEN kept_from <= p_files THEN 1 ELSE 0 END | CASE WHEN kept_from <= p_inputs THEN 2 ELSE 0 END
            | CASE WHEN kept_from <= p_outcomes THEN 4 ELSE 0 END | CASE WHEN kept_from <= p_events THEN 8 ELSE 0 END) END, at, p_ttl) m;
END
$$;
