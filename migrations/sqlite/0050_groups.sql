-- Groups: batches of an app that were submitted under a name. A group has ended when it is sealed and each of its batches is done. The transaction that makes it so finds that
-- out, and no other: it marks the group, once and for ever.
ALTER TABLE batches ADD COLUMN group_name TEXT;      -- one of its app's groups
CREATE INDEX batches_by_group ON batches (app, group_name, batch_key) WHERE group_name IS NOT NULL;
-- What a group waits for: so nobody counts.
CREATE INDEX batches_open_in_group ON batches (app, group_name) WHERE group_name IS NOT NULL AND step <> 'done';

-- Made by the first batch; goes with the last one, when it has ended.
CREATE TABLE groups (
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    sealed_at INTEGER,                        -- no batch comes in from then on
    ended_at INTEGER,                         -- when it was sealed or the last of its batches was final, whichever came later; set once
    PRIMARY KEY (app, name),
    CONSTRAINT only_what_is_sealed_has_ended CHECK (ended_at IS NULL OR sealed_at IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- Whatever ends a batch, removes it, or seals a group, looks whether the group has ended.
CREATE TRIGGER group_ends_with_a_batch AFTER UPDATE OF step ON batches WHEN NEW.group_name IS NOT NULL AND NEW.step = 'done' AND OLD.step <> 'done'
BEGIN
    UPDATE groups SET ended_at = max(sealed_at, coalesce(
        (SELECT max(b.finished_at) FROM batches b WHERE b.app = NEW.app AND b.group_name = NEW.group_name AND b.group_name IS NOT NULL), sealed_at))
    WHERE app = NEW.app AND name = NEW.group_name AND sealed_at IS NOT NULL AND ended_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.app = NEW.app AND b.group_name = NEW.group_name AND b.group_name IS NOT NULL AND b.step <> 'done');
END;
CREATE TRIGGER group_ends_with_its_seal AFTER UPDATE OF sealed_at ON groups WHEN NEW.sealed_at IS NOT NULL AND OLD.sealed_at IS NULL
BEGIN
    UPDATE groups SET ended_at = max(sealed_at, coalesce(
        (SELECT max(b.finished_at) FROM batches b WHERE b.app = NEW.app AND b.group_name = NEW.name AND b.group_name IS NOT NULL), sealed_at))
    WHERE app = NEW.app AND name = NEW.name AND ended_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.app = NEW.app AND b.group_name = NEW.name AND b.group_name IS NOT NULL AND b.step <> 'done');
END;
-- It was held, and was discarded: nobody waits for it any more.
CREATE TRIGGER group_ends_without_a_batch AFTER DELETE ON batches WHEN OLD.group_name IS NOT NULL AND OLD.step <> 'done'
BEGIN
    UPDATE groups SET ended_at = max(sealed_at, coalesce(
        (SELECT max(b.finished_at) FROM batches b WHERE b.app = OLD.app AND b.group_name = OLD.group_name AND b.group_name IS NOT NULL), sealed_at))
    WHERE app = OLD.app AND name = OLD.group_name AND sealed_at IS NOT NULL AND ended_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.app = OLD.app AND b.group_name = OLD.group_name AND b.group_name IS NOT NULL AND b.step <> 'done');
END;
CREATE TRIGGER group_goes_with_its_batches AFTER DELETE ON batches WHEN OLD.group_name IS NOT NULL AND OLD.step = 'done'
BEGIN
    DELETE FROM groups WHERE app = OLD.app AND name = OLD.group_name AND ended_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.app = OLD.app AND b.group_name = OLD.group_name AND b.group_name IS NOT NULL);
END;
