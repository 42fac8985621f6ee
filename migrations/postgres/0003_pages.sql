-- Pages of a batch are found by functions of their own, which go along an index whatever the database thinks of its tables: where it thinks that there is little
-- left, it would sort all the rest of the batch for each page. (What is off costs it so much that it would compile each query, which takes longer than the query.)

-- The rows of a lease that is still held, with the bytes of their inputs bounded: one row at least. Nothing when it is lost. Inputs stand behind each other, since an
-- array costs more for each; between them is a character that JSON cannot hold. Rows are numbered from first_row on unless row_nos says otherwise.
CREATE FUNCTION rowmill.read_leased_rows(p_lease bigint, p_token bigint, p_now bigint, p_bytes_max bigint)
RETURNS TABLE (first_row int, row_nos int[], lines bigint[], inputs text, rejected text[], attempt int, attempts int[]) LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    lease record;
    page_end int;
BEGIN
    SELECT l.*, b.input_bytes_max INTO lease FROM rowmill.leases l JOIN rowmill.batches b USING (batch_key)
    WHERE l.lease_id = p_lease AND l.token = p_token AND l.expires_at > coalesce(p_now, rowmill.now_ms()) AND b.step = 'rows';
    IF NOT FOUND THEN RETURN; END IF;
    IF lease.retries THEN
        RETURN QUERY SELECT 0, array_agg(p.row_no), array_agg(p.line), string_agg(p.input, E'\x1e'), array_agg(p.rejected), 0, array_agg(p.attempt) FROM (
            SELECT a.*, sum(octet_length(a.input)) OVER (ORDER BY a.row_no) - octet_length(a.input) AS bytes_before FROM (
                SELECT w.row_no, w.line, w.input, w.rejected, r.attempt FROM rowmill.retries r JOIN rowmill.rows w USING (batch_key, row_no)
                WHERE r.lease_id = p_lease) a ORDER BY a.row_no) p
        WHERE p.bytes_before < p_bytes_max;
        RETURN;
    END IF;
    page_end := lease.last_row;
    IF (lease.last_row - lease.next_row + 1) * lease.input_bytes_max::bigint > p_bytes_max THEN
        SELECT max(p.row_no) INTO page_end FROM (
            SELECT w.row_no, sum(octet_length(w.input)) OVER (ORDER BY w.row_no) - octet_length(w.input) AS bytes_before
            FROM rowmill.rows w WHERE w.batch_key = lease.batch_key AND w.row_no BETWEEN lease.next_row AND lease.last_row) p
        WHERE p.bytes_before < p_bytes_max;
    END IF;
    RETURN QUERY SELECT lease.next_row, NULL::int[], array_agg(p.line), string_agg(p.input, E'\x1e'),
        CASE WHEN count(p.rejected) > 0 THEN array_agg(p.rejected) END, 1 + lease.crashes, NULL::int[]
    FROM (SELECT w.line, w.input, w.rejected FROM rowmill.rows w
        WHERE w.batch_key = lease.batch_key AND w.row_no BETWEEN lease.next_row AND page_end ORDER BY w.row_no) p;
END
$$;

-- A page of pieces of a batch whose lines grow: rows with pieces behind a row, from the next one on, with the bytes of their pieces bounded: one row at least. Nothing
-- when there are no more. The rows' files and pieces stand behind each other as their inputs do above.
CREATE FUNCTION rowmill.read_pieces(p_batch_key bigint, p_after bigint, p_limit bigint, p_bytes_max bigint)
RETURNS TABLE (row_nos int[], files text, pieces text) LANGUAGE plpgsql STABLE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    first bigint := (SELECT o.row_no FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no > p_after AND o.piece_files IS NOT NULL
        ORDER BY o.row_no LIMIT 1);
    page_end bigint := first + p_limit - 1;
BEGIN
    IF first IS NULL THEN RETURN; END IF;
    IF p_limit * (SELECT b.piece_bytes_max FROM rowmill.batches b WHERE b.batch_key = p_batch_key) > p_bytes_max THEN
        SELECT max(p.row_no) INTO page_end FROM (
            SELECT o.row_no, sum(octet_length(o.pieces)) OVER (ORDER BY o.row_no) - octet_length(o.pieces) AS bytes_before
            FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no BETWEEN first AND page_end AND o.piece_files IS NOT NULL) p
        WHERE p.bytes_before < p_bytes_max;
    END IF;
    RETURN QUERY SELECT array_agg(p.row_no), string_agg(p.piece_files, ' '), string_agg(p.pieces, E'\x1a3') FROM (
        SELECT o.row_no, o.piece_files, o.pieces FROM rowmill.outcomes o
        WHERE o.batch_key = p_batch_key AND o.row_no BETWEEN first AND page_end AND o.piece_files IS NOT NULL ORDER BY o.row_no) p;
END
$$;

CREATE FUNCTION rowmill.next_lines(p_batch_key bigint, p_line bigint, p_row_no bigint, p_limit bigint, p_with_pieces boolean)
RETURNS TABLE (line bigint, row_no int) LANGUAGE plpgsql STABLE SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    IF p_with_pieces THEN
        RETURN QUERY SELECT l.line, l.row_no FROM rowmill.line_order l
        CROSS JOIN LATERAL (SELECT FROM rowmill.outcomes o WHERE o.batch_key = p_batch_key AND o.row_no = l.row_no AND o.piece_files IS NOT NULL LIMIT 1) o
        WHERE l.batch_key = p_batch_key AND (l.line, l.row_no) > (p_line, p_row_no) ORDER BY l.line, l.row_no LIMIT p_limit;
    ELSE
        RETURN QUERY SELECT l.line, l.row_no FROM rowmill.line_order l
        WHERE l.batch_key = p_batch_key AND (l.line, l.row_no) > (p_line, p_row_no) ORDER BY l.line, l.row_no LIMIT p_limit;
    END IF;
END
$$;
