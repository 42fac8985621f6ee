-- Evidence: triggers write down every change of what the checker judges, in the same transaction as the change, so that what was rolled back leaves no trace.
--
-- Changes of one batch, and of one lease, follow each other by their row's lock, which the transaction holds to its end: in the order of `seq` each entry
-- begins with the state in which the one before ended. `xid` tells which changes belong together, `who` which process made them (each worker has a role of
-- its own), `began` when the statement reached the database.

CREATE SCHEMA audit;

CREATE SEQUENCE audit.seq;

CREATE FUNCTION audit.began() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT floor(extract(epoch FROM transaction_timestamp()) * 1000)::bigint
$$;

-- The whole row before and after, of batches, leases and output files.
CREATE TABLE audit.changes (
    seq bigint PRIMARY KEY DEFAULT nextval('audit.seq'),
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    who text NOT NULL DEFAULT session_user,
    began bigint NOT NULL DEFAULT audit.began(),
    at bigint NOT NULL DEFAULT rowmill.now_ms(),
    source text NOT NULL,
    batch_key bigint NOT NULL,
    before text,
    after text
);
CREATE INDEX changes_by_batch ON audit.changes (batch_key, source, seq);

-- Rows of tables that are only appended to: `op` other than INSERT is a violation, but for those of a batch that is discarded, and outcomes of rows that are run again. `detail` is what a row's content is
-- compared by.
CREATE TABLE audit.appended (
    seq bigint PRIMARY KEY DEFAULT nextval('audit.seq'),
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    who text NOT NULL DEFAULT session_user,
    began bigint NOT NULL DEFAULT audit.began(),
    source text NOT NULL,
    op text NOT NULL,
    batch_key bigint NOT NULL,
    row_no int NOT NULL,
    detail text NOT NULL,
    kept text
);
CREATE INDEX appended_by_batch ON audit.appended (batch_key, source, row_no);

CREATE FUNCTION audit.changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.changes (source, batch_key, before, after)
    VALUES (TG_TABLE_NAME, CASE WHEN TG_OP = 'DELETE' THEN OLD.batch_key ELSE NEW.batch_key END,
        CASE WHEN TG_OP <> 'INSERT' THEN to_json(OLD)::text END, CASE WHEN TG_OP <> 'DELETE' THEN to_json(NEW)::text END);
    RETURN NULL;
END
$$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON rowmill.batches FOR EACH ROW EXECUTE FUNCTION audit.changed();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON rowmill.leases FOR EACH ROW EXECUTE FUNCTION audit.changed();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON rowmill.output_files FOR EACH ROW EXECUTE FUNCTION audit.changed();

CREATE FUNCTION audit.digest(o rowmill.outcomes) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT md5(to_json(o)::text) $$;

-- What is kept of an outcome whose row is run again.
CREATE FUNCTION audit.kept(p_attempt int, p_fuel bigint, p_output text, p_messages text, p_log text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT md5(json_build_array(p_attempt, p_fuel, p_output, p_messages, p_log)::text)
$$;

CREATE FUNCTION audit.outcomes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.appended (source, op, batch_key, row_no, detail, kept)
    SELECT 'outcomes', TG_OP, c.batch_key, c.row_no, c.failed::text || ' ' || c.attempt || ' ' || audit.digest(c::rowmill.outcomes),
        CASE WHEN TG_OP = 'DELETE' THEN audit.kept(c.attempt, c.fuel, c.output, c.messages, c.log) END FROM changed c;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_insert AFTER INSERT ON rowmill.outcomes REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.outcomes();
CREATE TRIGGER audit_update AFTER UPDATE ON rowmill.outcomes REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.outcomes();
CREATE TRIGGER audit_delete AFTER DELETE ON rowmill.outcomes REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.outcomes();

CREATE FUNCTION audit.past_outcomes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.appended (source, op, batch_key, row_no, detail, kept)
    SELECT 'past_outcomes', TG_OP, c.batch_key, c.row_no, c.round || ' ' || k.kept, k.kept
    FROM changed c CROSS JOIN LATERAL (SELECT audit.kept(c.attempt, c.fuel, c.output, c.messages, c.log)) k (kept);
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_insert AFTER INSERT ON rowmill.past_outcomes REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.past_outcomes();
CREATE TRIGGER audit_update AFTER UPDATE ON rowmill.past_outcomes REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.past_outcomes();
CREATE TRIGGER audit_delete AFTER DELETE ON rowmill.past_outcomes REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.past_outcomes();

CREATE FUNCTION audit.rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.appended (source, op, batch_key, row_no, detail)
    SELECT 'rows', TG_OP, c.batch_key, min(c.row_no), count(*)::text FROM changed c GROUP BY c.batch_key;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_update AFTER UPDATE ON rowmill.rows REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.rows();
CREATE TRIGGER audit_delete AFTER DELETE ON rowmill.rows REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit.rows();

-- Groups: they have no key of a batch.
CREATE TABLE audit.groups (
    seq bigint PRIMARY KEY DEFAULT nextval('audit.seq'),
    before text,
    after text
);
CREATE FUNCTION audit.groups() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.groups (before, after) VALUES (CASE WHEN TG_OP <> 'INSERT' THEN to_json(OLD)::text END, CASE WHEN TG_OP <> 'DELETE' THEN to_json(NEW)::text END);
    RETURN NULL;
END
$$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON rowmill.groups FOR EACH ROW EXECUTE FUNCTION audit.groups();
