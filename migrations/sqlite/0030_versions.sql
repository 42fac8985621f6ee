-- Versions of processors are registered, activated, rolled back and removed. A version that was removed stays as a row, so that its number means nothing else later.
ALTER TABLE processors ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0; -- of the component as it was uploaded
ALTER TABLE processors ADD COLUMN note TEXT;                             -- what the one who registered it says about it
ALTER TABLE processors ADD COLUMN removed_at INTEGER;                    -- set when it is removed: nothing is submitted with it any more

-- Which version serves: of the activations of an operation that were not undone the last one.
CREATE TABLE activations (
    app TEXT NOT NULL,
    op TEXT NOT NULL,
    activation_no INTEGER NOT NULL,
    version INTEGER NOT NULL,
    activated_at INTEGER NOT NULL,
    undone_at INTEGER,                        -- set by a rollback
    PRIMARY KEY (app, op, activation_no)
) STRICT, WITHOUT ROWID;

-- Until now the newest version served.
INSERT INTO activations (app, op, activation_no, version, activated_at)
SELECT app, op, 1, max(version), max(created_at) FROM processors GROUP BY app, op;

-- Code that no version has any more, and that somebody removes from the object store now.
CREATE TABLE code_removals (
    digest TEXT PRIMARY KEY,
    until_at INTEGER NOT NULL                 -- then whoever removes it has died
) STRICT, WITHOUT ROWID;
