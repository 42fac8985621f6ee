-- Groups: batches of an app that were submitted under a name, and have ended together when the group is sealed and each of them has.
ALTER TABLE batches ADD COLUMN group_name TEXT;      -- one of its app's groups
CREATE INDEX batches_by_group ON batches (app, group_name, batch_key) WHERE group_name IS NOT NULL;
-- What a group waits for: so nobody counts.
CREATE INDEX batches_open_in_group ON batches (app, group_name) WHERE group_name IS NOT NULL AND step <> 'done';

-- Made by the first batch.
CREATE TABLE groups (
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    sealed_at INTEGER,                        -- no batch comes in from then on
    PRIMARY KEY (app, name)
) STRICT, WITHOUT ROWID;
