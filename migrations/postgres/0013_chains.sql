-- Chained batches: their rows are the outputs of another batch's rows, made when that has ended.
ALTER TABLE rowmill.batches
    ADD COLUMN after_batch uuid,
    ADD COLUMN after_condition text CONSTRAINT condition_is_known CHECK (after_condition IN ('success', 'any')),
    ADD CONSTRAINT a_chained_batch_has_a_condition CHECK ((after_batch IS NULL) = (after_condition IS NULL));
COMMENT ON COLUMN rowmill.batches.after_batch IS 'its rows are the outputs of this batch''s rows';
COMMENT ON COLUMN rowmill.batches.after_condition IS 'how that must have ended';

-- Chained batches that are not made yet, and how far they are. A row goes when its batch has its rows, or was aborted.
CREATE TABLE rowmill.chains (
    batch_key bigint PRIMARY KEY,
    first_key bigint NOT NULL,
    ready boolean NOT NULL,
    begun boolean NOT NULL DEFAULT false,
    line bigint NOT NULL DEFAULT -1,
    row_no int NOT NULL DEFAULT 0,
    taken int NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN rowmill.chains.first_key IS 'the batch that it comes after';
COMMENT ON COLUMN rowmill.chains.ready IS 'that has ended, or is gone; set in the transaction that ends it';
COMMENT ON COLUMN rowmill.chains.begun IS 'rows are being made: from now on that is not retried until they are';
COMMENT ON COLUMN rowmill.chains.row_no IS 'the last row that was looked at, with its line; moved with the rows that are made';
COMMENT ON COLUMN rowmill.chains.taken IS 'rows that were looked at: what has the fewest goes first';
CREATE INDEX chains_by_first ON rowmill.chains (first_key);
CREATE INDEX chains_ready ON rowmill.chains (batch_key) WHERE ready;

-- Keeps those who chain a batch apart from those who end or retry it: whoever chains (shared, to the end of the transaction) sees an end that was before, and an end sees
-- the chains that were before. It is none of the locks that claims and records wait for, since a caller's own transaction may stand still.
CREATE FUNCTION rowmill.lock_chains(p_batch_key bigint, p_shared boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_shared THEN
        PERFORM pg_advisory_xact_lock_shared(788140327, (p_batch_key % 2147483647)::int);
    ELSE
        PERFORM pg_advisory_xact_lock(788140327, (p_batch_key % 2147483647)::int);
    END IF;
END
$$;

-- The batch that a new one of this app is to come after, and whether it has ended. Nothing when there is none of the app.
CREATE FUNCTION rowmill.find_first(p_batch_id uuid, p_app text, OUT first_key bigint, OUT kind text, OUT ended boolean) RETURNS SETOF record LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    SELECT b.batch_key INTO first_key FROM rowmill.batches b WHERE b.batch_id = p_batch_id AND b.app = p_app;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM rowmill.lock_chains(find_first.first_key, true);
    -- As it is behind the lock.
    SELECT b.kind, b.step IN ('mark', 'done') INTO kind, ended FROM rowmill.batches b WHERE b.batch_key = find_first.first_key;
    IF FOUND THEN RETURN NEXT; END IF;
END
$$;

-- Makes the next rows of a chained batch whose first has ended: of so many rows of that, and so many bytes of outputs, one row at least. Behind the last one the batch is queued, or
-- aborted when it has none or the condition is not met. Nothing when no such batch waits, or others are at all of them.
--
-- Who waits for whom: the end of a batch, and its retry, wait for its chains. This holds a chain and waits for the chained batch, which waits for nobody that is before it in
-- the chain.
CREATE FUNCTION rowmill.advance_chain(p_rows bigint, p_bytes bigint, OUT batch_id uuid, OUT status text) RETURNS SETOF record LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    chain record;
    made record;
    first record;
    reason text;
    looked int := 0;
    seen int := 0;
    more boolean := false;
    last_line bigint;
    last_row int;
    rows_made int := 0;
    longest int := 0;
BEGIN
    SELECT c.* INTO chain FROM rowmill.chains c WHERE c.ready ORDER BY c.taken, c.batch_key LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    SELECT b.* INTO made FROM rowmill.batches b WHERE b.batch_key = chain.batch_key FOR NO KEY UPDATE;
    IF NOT FOUND OR made.status <> 'wait' THEN
        DELETE FROM rowmill.chains c WHERE c.batch_key = chain.batch_key;
        batch_id := made.batch_id;
        status := 'gone';
        RETURN NEXT;
        RETURN;
    END IF;
    batch_id := made.batch_id;
    SELECT b.* INTO first FROM rowmill.batches b WHERE b.batch_key = chain.first_key;
    IF NOT FOUND THEN
        reason := 'batch ' || made.after_batch || ', which it was to come after, is not there any more';
    ELSIF first.parts & 4 = 0 THEN
        reason := 'the outcomes of batch ' || made.after_batch || ', which it was to come after, were pruned';
    ELSIF made.after_condition = 'success' AND first.status <> 'success' THEN
        reason := 'batch ' || made.after_batch || ' ended as ' || first.status || ', and this one was to come after its success';
    ELSE
        WITH next AS (
            SELECT w.line, w.row_no FROM rowmill.rows w
            WHERE first.lines_ascend AND w.batch_key = first.batch_key AND w.row_no > chain.row_no AND w.row_no <= chain.row_no + p_rows
            UNION ALL
            SELECT l.line, l.row_no FROM rowmill.next_lines(first.batch_key, chain.line, chain.row_no, CASE WHEN first.lines_ascend THEN 0 ELSE p_rows END, false) l),
        sized AS MATERIALIZED (
            SELECT n.line, n.row_no, o.bytes, sum(coalesce(o.bytes, 0)) OVER (ORDER BY n.line, n.row_no) - coalesce(o.bytes, 0) AS bytes_before
            FROM next n LEFT JOIN LATERAL (
                SELECT coalesce(octet_length(o.output), 4) AS bytes FROM rowmill.outcomes o
                WHERE o.batch_key = first.batch_key AND o.row_no = n.row_no AND NOT o.failed LIMIT 1) o ON true),
        page AS MATERIALIZED (SELECT * FROM sized WHERE bytes_before < p_bytes),
        written AS (
            INSERT INTO rowmill.rows (batch_key, line, row_no, input)
            SELECT made.batch_key, p.line, made.row_count + (row_number() OVER (ORDER BY p.line, p.row_no))::int, coalesce(o.output, 'null')
            FROM page p CROSS JOIN LATERAL (
                SELECT o.output FROM rowmill.outcomes o WHERE o.batch_key = first.batch_key AND o.row_no = p.row_no LIMIT 1) o
            WHERE p.bytes IS NOT NULL RETURNING octet_length(input) AS bytes)
        SELECT (SELECT count(*) FROM sized), (SELECT count(*) FROM page), (SELECT count(*) FROM written), (SELECT max(bytes) FROM written), l.line, l.row_no
        INTO seen, looked, rows_made, longest, last_line, last_row
        FROM (SELECT) one LEFT JOIN LATERAL (SELECT p.line, p.row_no FROM page p ORDER BY p.line DESC, p.row_no DESC LIMIT 1) l ON true;
        more := looked < seen OR seen = p_rows;
        IF NOT more AND made.row_count + rows_made = 0 THEN
            reason := 'no row of batch ' || made.after_batch || ' succeeded, which this one was to come after';
        END IF;
    END IF;
    status := CASE WHEN reason IS NOT NULL THEN 'aborted' WHEN more THEN 'wait' ELSE 'queued' END;
    UPDATE rowmill.batches b SET status = advance_chain.status, step = CASE WHEN reason IS NULL THEN 'rows' ELSE 'join' END, abort_reason = reason,
        row_count = b.row_count + rows_made, line_last = coalesce(last_line, b.line_last), input_bytes_max = greatest(b.input_bytes_max, longest),
        fresh = reason IS NULL AND NOT more AND NOT b.deferred
    WHERE b.batch_key = chain.batch_key;
    IF more THEN
        UPDATE rowmill.chains c SET begun = true, line = last_line, row_no = last_row, taken = c.taken + looked WHERE c.batch_key = chain.batch_key;
    ELSE
        DELETE FROM rowmill.chains c WHERE c.batch_key = chain.batch_key;
        IF reason IS NOT NULL THEN
            PERFORM pg_notify('rowmill', 'aborted ' || made.batch_id), pg_notify('rowmill', 'work ' || made.kind);
        ELSE
            PERFORM pg_notify('rowmill', CASE WHEN made.deferred THEN 'work ' || made.kind ELSE made.kind || ' ' || made.app END);
        END IF;
    END IF;
    RETURN NEXT;
END
$$;
