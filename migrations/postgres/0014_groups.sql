-- Groups: batches of an app that were submitted under a name, and have ended together when the group is sealed and each of them has.
ALTER TABLE rowmill.batches ADD COLUMN group_name text COLLATE "C";
COMMENT ON COLUMN rowmill.batches.group_name IS 'one of its app''s groups';
CREATE INDEX batches_by_group ON rowmill.batches (app, group_name, batch_key) WHERE group_name IS NOT NULL;
-- What a group waits for: so nobody counts.
CREATE INDEX batches_open_in_group ON rowmill.batches (app, group_name) WHERE group_name IS NOT NULL AND step <> 'done';

-- Made by the first batch.
CREATE TABLE rowmill.groups (
    app text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    sealed_at bigint,
    PRIMARY KEY (app, name)
);
COMMENT ON COLUMN rowmill.groups.sealed_at IS 'no batch comes in from then on';

-- A batch comes into a group, which nobody seals until that commits. Whether it is open.
CREATE FUNCTION rowmill.enter_group(p_app text, p_name text, p_now bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    open boolean;
BEGIN
    INSERT INTO rowmill.groups (app, name, created_at) VALUES (p_app, p_name, coalesce(p_now, rowmill.now_ms())) ON CONFLICT (app, name) DO NOTHING;
    SELECT g.sealed_at IS NULL INTO open FROM rowmill.groups g WHERE g.app = p_app AND g.name = p_name FOR SHARE;
    RETURN open;
END
$$;
