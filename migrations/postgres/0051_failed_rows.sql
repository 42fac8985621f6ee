-- Failed rows of an app are listed: of its batches that have some, the newest first.

-- Batches of which a row ever failed. failure_at moves once a second at most: what `failed` itself stood in would be touched by each record that has failures.
CREATE INDEX batches_with_failures ON rowmill.batches (app, batch_key) WHERE failure_at IS NOT NULL;
-- A row that succeeded costs it nothing but a look at the condition.
CREATE INDEX outcomes_failed ON rowmill.outcomes (batch_key, row_no) WHERE failed;
-- Those that failed before there was anything to tell of.
UPDATE rowmill.batches SET failure_at = coalesce(finished_at, started_at, submitted_at) WHERE failed > 0 AND failure_at IS NULL;

-- Failed rows of an app, behind a place: from the newest batch to the oldest, in each in the order in which its rows came in. Of one operation, with one of these codes (as they
-- stand in messages), and of batches of which a row failed at a moment or later, if so wanted (NULL, empty, NULL). At most p_limit rows of about p_bytes, or fewer, where so many batches and failed rows
-- (p_looks) were looked at. A last row without a batch says where to go on; without it that was all.
CREATE FUNCTION rowmill.list_failed(p_app text, p_op text, p_marks text[], p_since bigint, p_batch_key bigint, p_row_no int, p_limit int, p_looks int, p_bytes bigint)
RETURNS TABLE (batch_key bigint, batch_id uuid, op text, round int, with_inputs boolean, row_no bigint, line bigint, input text, failed boolean, attempt bigint, fuel bigint,
    output text, messages text, log text) LANGUAGE plpgsql STABLE
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    batch record;
    looked record;
    looks int := p_looks;
    found_rows int := 0;
    found_bytes bigint := 0;
BEGIN
    FOR batch IN
        SELECT b.batch_key, b.batch_id, b.op, b.round, b.inputs_pruned_at IS NULL AS with_inputs,
            b.failed > 0 AND b.outcomes_pruned_at IS NULL AND (p_op IS NULL OR b.op = p_op) AND (p_since IS NULL OR b.failure_at > p_since - 1000) AS wanted
        FROM rowmill.batches b WHERE b.app = p_app AND b.failure_at IS NOT NULL AND b.batch_key <= p_batch_key ORDER BY b.batch_key DESC
    LOOP
        IF looks <= 0 THEN
            RETURN QUERY SELECT batch.batch_key, NULL::uuid, NULL, NULL::int, false, 0::bigint, 0::bigint, '', NULL::boolean, NULL::bigint, NULL::bigint, NULL, NULL, NULL;
            RETURN;
        END IF;
        looks := looks - 1;
        CONTINUE WHEN NOT batch.wanted;
        FOR looked IN
            SELECT o.row_no, cardinality(p_marks) = 0 OR EXISTS (SELECT FROM unnest(p_marks) c (mark) WHERE position(c.mark IN o.messages) > 0) AS wanted
            FROM rowmill.outcomes o
            WHERE o.batch_key = batch.batch_key AND o.failed AND o.row_no > CASE WHEN batch.batch_key = p_batch_key THEN p_row_no ELSE 0 END ORDER BY o.row_no
        LOOP
            looks := looks - 1;
            IF looked.wanted THEN
                SELECT r.line, r.input, o.failed, o.attempt, o.fuel, o.output, o.messages, o.log INTO line, input, failed, attempt, fuel, output, messages, log
                FROM rowmill.rows r, rowmill.outcomes o
                WHERE r.batch_key = batch.batch_key AND r.row_no = looked.row_no AND o.batch_key = batch.batch_key AND o.row_no = looked.row_no;
                batch_key := batch.batch_key;
                batch_id := batch.batch_id;
                op := batch.op;
                round := batch.round;
                with_inputs := batch.with_inputs;
                row_no := looked.row_no;
                RETURN NEXT;
                found_rows := found_rows + 1;
                found_bytes := found_bytes + octet_length(input) + coalesce(octet_length(output), 0) + coalesce(octet_length(messages), 0) + coalesce(octet_length(log), 0);
            END IF;
            IF found_rows >= p_limit OR looks <= 0 OR found_bytes >= p_bytes THEN
                RETURN QUERY SELECT batch.batch_key, NULL::uuid, NULL, NULL::int, false, looked.row_no::bigint, 0::bigint, '', NULL::boolean, NULL::bigint, NULL::bigint, NULL, NULL, NULL;
                RETURN;
            END IF;
        END LOOP;
    END LOOP;
END
$$;
