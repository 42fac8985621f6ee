-- Activations are counted for each kind of processor: one batch processor and one slow-query processor may serve an operation beside each other.
CREATE TABLE activations_of_kinds (
    app TEXT NOT NULL,
    op TEXT NOT NULL,
    kind TEXT NOT NULL,                       -- that of the version
    activation_no INTEGER NOT NULL,
    version INTEGER NOT NULL,
    activated_at INTEGER NOT NULL,
    undone_at INTEGER,                        -- set by a rollback, and when the version is deactivated
    PRIMARY KEY (app, op, kind, activation_no)
) STRICT, WITHOUT ROWID;

-- Until now a version that was activated replaced one of the other kind. This migration lets serve what served: the other kind serves again once one of its
-- versions is activated.
INSERT INTO activations_of_kinds (app, op, kind, activation_no, version, activated_at, undone_at)
SELECT a.app, a.op, p.kind, a.activation_no, a.version, a.activated_at,
    CASE WHEN p.kind = s.kind THEN a.undone_at ELSE coalesce(a.undone_at, s.activated_at) END
FROM activations a
JOIN processors p ON p.app = a.app AND p.op = a.op AND p.version = a.version
LEFT JOIN (
    SELECT l.app, l.op, q.kind, l.activated_at FROM activations l
    JOIN processors q ON q.app = l.app AND q.op = l.op AND q.version = l.version
    WHERE l.activation_no = (SELECT max(m.activation_no) FROM activations m WHERE m.app = l.app AND m.op = l.op AND m.undone_at IS NULL)
) s ON s.app = a.app AND s.op = a.op;

DROP TABLE activations;
ALTER TABLE activations_of_kinds RENAME TO activations;
