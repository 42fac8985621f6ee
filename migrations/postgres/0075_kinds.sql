-- Activations are counted for each kind of processor: one batch processor and one slow-query processor may serve an operation beside each other.
ALTER TABLE rowmill.activations ADD COLUMN kind text;
UPDATE rowmill.activations a SET kind = p.kind FROM rowmill.processors p WHERE p.app = a.app AND p.op = a.op AND p.version = a.version;

-- Until now a version that was activated replaced one of the other kind. This migration lets serve what served: the other kind serves again once one of its
-- versions is activated.
UPDATE rowmill.activations a SET undone_at = s.activated_at
FROM rowmill.activations s
WHERE a.undone_at IS NULL AND s.app = a.app AND s.op = a.op AND s.kind <> a.kind
    AND s.activation_no = (SELECT max(m.activation_no) FROM rowmill.activations m WHERE m.app = s.app AND m.op = s.op AND m.undone_at IS NULL);

ALTER TABLE rowmill.activations
    ALTER COLUMN kind SET NOT NULL,
    ADD CONSTRAINT kind_is_known CHECK (kind IN ('batch', 'slow_query')),
    DROP CONSTRAINT activations_pkey,
    ADD PRIMARY KEY (app, op, kind, activation_no);
COMMENT ON COLUMN rowmill.activations.kind IS 'that of the version';
COMMENT ON COLUMN rowmill.activations.undone_at IS 'set by a rollback, and when the version is deactivated';
