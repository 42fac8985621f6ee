-- Versions of processors are registered, activated, rolled back and removed. A version that was removed stays as a row, so that its number means nothing else later.
ALTER TABLE rowmill.processors ADD COLUMN size_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE rowmill.processors ADD COLUMN note text;
ALTER TABLE rowmill.processors ADD COLUMN removed_at bigint;
ALTER TABLE rowmill.processors ADD COLUMN removed_by xid8;
COMMENT ON COLUMN rowmill.processors.size_bytes IS 'of the component as it was uploaded';
COMMENT ON COLUMN rowmill.processors.note IS 'what the one who registered it says about it';
COMMENT ON COLUMN rowmill.processors.removed_at IS 'set when it is removed: nothing is submitted with it any more';
COMMENT ON COLUMN rowmill.processors.removed_by IS 'the transaction that set removed_at: older ones may still submit with it';

-- Which version serves: of the activations of an operation that were not undone the last one.
CREATE TABLE rowmill.activations (
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    activation_no bigint NOT NULL,
    version int NOT NULL,
    activated_at bigint NOT NULL,
    undone_at bigint,
    PRIMARY KEY (app, op, activation_no)
);
COMMENT ON COLUMN rowmill.activations.undone_at IS 'set by a rollback';

-- Until now the newest version served.
INSERT INTO rowmill.activations (app, op, activation_no, version, activated_at)
SELECT app, op, 1, max(version), max(created_at) FROM rowmill.processors GROUP BY app, op;

-- Code that no version has any more, and that somebody removes from the object store now.
CREATE TABLE rowmill.code_removals (
    digest text PRIMARY KEY,
    until_at bigint NOT NULL
);
COMMENT ON COLUMN rowmill.code_removals.until_at IS 'then whoever removes it has died';
