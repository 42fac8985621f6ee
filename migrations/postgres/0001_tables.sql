-- Times are milliseconds since 1970-01-01T00:00:00Z, by the database's clock. Rows of a batch are numbered densely from 1, in the order in which they came in.
-- Every table that grows with rows has the batch first in its key, so that it can be partitioned, pruned or distributed by batch.

CREATE TABLE rowmill.apps (
    app text COLLATE "C" PRIMARY KEY,
    weight int NOT NULL DEFAULT 1 CONSTRAINT weight_is_in_range CHECK (weight BETWEEN 1 AND 1000),
    running_max int CONSTRAINT at_least_one_may_run CHECK (running_max >= 1),
    limits text,
    served_micros bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN rowmill.apps.weight IS 'share of the work, against the weights of the other apps; set by operators';
COMMENT ON COLUMN rowmill.apps.running_max IS 'leases that run at the same time, NULL for no limit; set by operators';
COMMENT ON COLUMN rowmill.apps.limits IS 'what one row may use, as JSON, NULL for the defaults; set by operators';
COMMENT ON COLUMN rowmill.apps.served_micros IS 'virtual time: work that was leased, divided by the weight; moved by claims';

-- One row: the virtual time of the last claim.
CREATE TABLE rowmill.schedule (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT there_is_one CHECK (one),
    served_micros bigint NOT NULL
);
INSERT INTO rowmill.schedule (served_micros) VALUES (0);

-- By how much leases took more or less than they were charged for. Appended by records, taken up by the next claim.
CREATE TABLE rowmill.charges (
    app text COLLATE "C" NOT NULL,
    micros bigint NOT NULL
);

-- What operators say about the work of an app, or of one of its operations.
CREATE TABLE rowmill.policies (
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)),
    paused boolean NOT NULL DEFAULT false,
    rate_micros bigint CONSTRAINT a_rate_is_more_than_nothing CHECK (rate_micros > 0),
    burst bigint CONSTRAINT a_burst_is_a_row_at_least CHECK (burst > 0),
    tokens bigint,
    refilled_at bigint,
    terms text,
    PRIMARY KEY (app, op),
    CONSTRAINT a_rate_is_whole CHECK ((rate_micros IS NULL) = (burst IS NULL) AND (rate_micros IS NULL) = (tokens IS NULL) AND (rate_micros IS NULL) = (refilled_at IS NULL))
) WITH (fillfactor = 50);
COMMENT ON COLUMN rowmill.policies.op IS 'an operation, or nothing for all of the app';
COMMENT ON COLUMN rowmill.policies.paused IS 'nothing of it is leased';
COMMENT ON COLUMN rowmill.policies.rate_micros IS 'so many millionths of rows are leased per second, NULL for no limit';
COMMENT ON COLUMN rowmill.policies.burst IS 'so many rows may be leased at once after a while without work';
COMMENT ON COLUMN rowmill.policies.tokens IS 'billionths of rows that could be leased at refilled_at; moved by claims';
COMMENT ON COLUMN rowmill.policies.refilled_at IS 'when tokens was counted';
COMMENT ON COLUMN rowmill.policies.terms IS 'the terms of batches that say nothing else, as JSON';

CREATE TABLE rowmill.processors (
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)),
    version int NOT NULL CONSTRAINT versions_begin_with_one CHECK (version >= 1),
    kind text NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('batch', 'slow_query')),
    digest text NOT NULL,
    created_at bigint NOT NULL,
    row_micros bigint,
    PRIMARY KEY (app, op, version)
);
COMMENT ON COLUMN rowmill.processors.digest IS 'SHA-256 of the component, by which the object store has it';
COMMENT ON COLUMN rowmill.processors.row_micros IS 'about the time per row of the batches that ended last; set by records';

CREATE TABLE rowmill.workers (
    worker text COLLATE "C" PRIMARY KEY,
    host text NOT NULL,
    pid bigint NOT NULL,
    slots int NOT NULL,
    query_slots int NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    started_at bigint NOT NULL,
    seen_at bigint NOT NULL
);
COMMENT ON COLUMN rowmill.workers.seen_at IS 'the last heartbeat';

CREATE TABLE rowmill.batches (
    batch_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL UNIQUE,
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)),
    kind text NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('batch', 'slow_query')),
    priority int NOT NULL DEFAULT 0,
    processor_version bigint NOT NULL,
    processor_digest text NOT NULL,
    context text NOT NULL,
    request_digest text,
    attempts_max bigint NOT NULL CONSTRAINT at_least_one_attempt CHECK (attempts_max >= 1),
    retry_rule text,
    start_at bigint,
    deferred boolean NOT NULL DEFAULT false,
    deadline_at bigint,
    failures_max bigint CONSTRAINT failures_are_not_negative CHECK (failures_max >= 0),
    failures_percent bigint CONSTRAINT a_part_is_no_more_than_the_whole CHECK (failures_percent BETWEEN 0 AND 100),
    status text NOT NULL CONSTRAINT status_is_known CHECK (status IN ('wait', 'queued', 'inprog', 'success', 'failed', 'aborted')),
    step text NOT NULL DEFAULT 'rows' CONSTRAINT step_is_known CHECK (step IN ('rows', 'join', 'mark', 'done')),
    fresh boolean NOT NULL DEFAULT false,
    row_count int NOT NULL DEFAULT 0,
    next_row int NOT NULL DEFAULT 1,
    line_last bigint NOT NULL DEFAULT -1,
    lines_ascend boolean NOT NULL DEFAULT true,
    input_bytes_max int NOT NULL DEFAULT 0,
    piece_bytes_max int NOT NULL DEFAULT 0,
    success int NOT NULL DEFAULT 0,
    failed int NOT NULL DEFAULT 0,
    fuel bigint NOT NULL DEFAULT 0,
    row_micros bigint,
    abort_reason text,
    mark_error text,
    submitted_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    finish_token bigint,
    finish_worker text,
    finish_expires_at bigint,
    finish_attempt int NOT NULL DEFAULT 0,
    CONSTRAINT the_cursor_is_inside CHECK (next_row BETWEEN 1 AND row_count + 1),
    CONSTRAINT no_more_outcomes_than_rows CHECK (success + failed <= row_count),
    CONSTRAINT fresh_says_that_rows_wait CHECK (fresh = (step = 'rows' AND status IN ('queued', 'inprog') AND next_row <= row_count AND NOT deferred)),
    CONSTRAINT what_is_deferred_has_a_start CHECK (NOT deferred OR start_at IS NOT NULL)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200, autovacuum_analyze_scale_factor = 0.1);
COMMENT ON COLUMN rowmill.batches.batch_id IS 'a UUIDv7, the name of the batch outside';
COMMENT ON COLUMN rowmill.batches.request_digest IS 'of what was asked for, where it has a key: the id is made from that';
COMMENT ON COLUMN rowmill.batches.retry_rule IS 'when rows are tried again, as JSON, NULL for the default';
COMMENT ON COLUMN rowmill.batches.start_at IS 'no row is leased before';
COMMENT ON COLUMN rowmill.batches.deferred IS 'its start lay ahead when a claim looked last';
COMMENT ON COLUMN rowmill.batches.deadline_at IS 'rows without an outcome are aborted then';
COMMENT ON COLUMN rowmill.batches.failures_max IS 'a record that makes it more failed rows than this aborts the batch';
COMMENT ON COLUMN rowmill.batches.failures_percent IS 'the same as a part of its rows';
COMMENT ON COLUMN rowmill.batches.fresh IS 'rows wait that a lease can take and none has taken; kept beside what it says so that moving the cursor touches no index';
COMMENT ON COLUMN rowmill.batches.row_count IS 'moved by submit and append';
COMMENT ON COLUMN rowmill.batches.next_row IS 'the cursor: the first row that no lease has taken; moved by claims';
COMMENT ON COLUMN rowmill.batches.line_last IS 'the line of the last row';
COMMENT ON COLUMN rowmill.batches.lines_ascend IS 'false once a line did not grow; then line_order has every row';
COMMENT ON COLUMN rowmill.batches.input_bytes_max IS 'the length of its longest input, moved by submit and append: where so many of these fit into a page, nobody sums up lengths';
COMMENT ON COLUMN rowmill.batches.piece_bytes_max IS 'the same of what one row gave to output files, moved by records';
COMMENT ON COLUMN rowmill.batches.success IS 'moved in the transaction that appends the outcomes';
COMMENT ON COLUMN rowmill.batches.failed IS 'moved in the transaction that appends the outcomes';
COMMENT ON COLUMN rowmill.batches.fuel IS 'moved in the transaction that appends the outcomes';
COMMENT ON COLUMN rowmill.batches.row_micros IS 'time per row: that of the batches before, then measured and smoothed; set by submit and records';
COMMENT ON COLUMN rowmill.batches.abort_reason IS 'set by abort';
COMMENT ON COLUMN rowmill.batches.mark_error IS 'set when mark-done failed';
COMMENT ON COLUMN rowmill.batches.started_at IS 'set by the first claim';
COMMENT ON COLUMN rowmill.batches.finished_at IS 'set when status and files are final';
COMMENT ON COLUMN rowmill.batches.finish_token IS 'set by the claim of a finish lease, cleared at the end of the step';
COMMENT ON COLUMN rowmill.batches.finish_expires_at IS 'when the finish lease ends; without a token, when it can be claimed again';
-- Claims look only at batches that have rows to lease, and jump from operation to operation.
CREATE INDEX batches_fresh ON rowmill.batches (kind, app, op, priority DESC, batch_key) WHERE fresh;
CREATE INDEX batches_deferred ON rowmill.batches (start_at) WHERE deferred AND status = 'queued';
CREATE INDEX batches_with_a_deadline ON rowmill.batches (deadline_at) WHERE deadline_at IS NOT NULL AND step = 'rows';
-- The time comes before the key so that no plan goes along the primary key, through all batches that were ever done.
CREATE INDEX batches_to_finish ON rowmill.batches (kind, submitted_at, batch_key) WHERE step IN ('join', 'mark') AND finish_expires_at IS NULL;
CREATE INDEX batches_to_finish_later ON rowmill.batches (finish_expires_at) WHERE finish_expires_at IS NOT NULL;

-- Written once, never updated.
CREATE TABLE rowmill.rows (
    batch_key bigint NOT NULL,
    line bigint NOT NULL,
    row_no int NOT NULL,
    input text NOT NULL,
    rejected text,
    PRIMARY KEY (batch_key, row_no)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.5);
COMMENT ON COLUMN rowmill.rows.line IS 'the number that the submitter gave';
COMMENT ON COLUMN rowmill.rows.input IS 'JSON, to the letter';
COMMENT ON COLUMN rowmill.rows.rejected IS 'why it cannot be run, if so';

-- Only for batches whose lines did not always grow.
CREATE TABLE rowmill.line_order (
    batch_key bigint NOT NULL,
    line bigint NOT NULL,
    row_no int NOT NULL,
    PRIMARY KEY (batch_key, line, row_no),
    CONSTRAINT each_row_of_a_batch_has_a_line_of_its_own UNIQUE (batch_key, line)
);

-- A lease holds the rows next_row..last_row, or (retries) the rows of retries that name it. It goes when its last row is recorded.
CREATE TABLE rowmill.leases (
    lease_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_key bigint NOT NULL,
    app text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    token bigint NOT NULL,
    worker text COLLATE "C" NOT NULL,
    retries boolean NOT NULL,
    next_row int NOT NULL,
    last_row int NOT NULL,
    crashes int NOT NULL,
    charged_micros bigint NOT NULL,
    took_micros bigint NOT NULL DEFAULT 0,
    expires_at bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN rowmill.leases.token IS 'changes with every owner, by chance; 0 when nobody owns it';
COMMENT ON COLUMN rowmill.leases.next_row IS 'moved by records';
COMMENT ON COLUMN rowmill.leases.crashes IS 'moved when it is taken over from a worker that went silent';
COMMENT ON COLUMN rowmill.leases.charged_micros IS 'what its app was charged for it';
CREATE INDEX leases_by_expiry ON rowmill.leases (expires_at);
CREATE INDEX leases_by_batch ON rowmill.leases (batch_key);

-- Rows that are to be run again.
CREATE TABLE rowmill.retries (
    batch_key bigint NOT NULL,
    row_no int NOT NULL,
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    attempt int NOT NULL,
    due_at bigint NOT NULL,
    lease_id bigint,
    PRIMARY KEY (batch_key, row_no)
);
COMMENT ON COLUMN rowmill.retries.attempt IS 'the attempt that comes';
COMMENT ON COLUMN rowmill.retries.lease_id IS 'set by a claim, cleared when that attempt asks for another';
CREATE INDEX retries_due ON rowmill.retries (due_at) WHERE lease_id IS NULL;
CREATE INDEX retries_due_by_op ON rowmill.retries (kind, app, op, due_at) WHERE lease_id IS NULL;
CREATE INDEX retries_due_by_batch ON rowmill.retries (batch_key, due_at, row_no) WHERE lease_id IS NULL;
CREATE INDEX retries_by_lease ON rowmill.retries (lease_id, row_no) WHERE lease_id IS NOT NULL;

-- Append-only.
CREATE TABLE rowmill.outcomes (
    batch_key bigint NOT NULL,
    fuel bigint NOT NULL,
    row_no int NOT NULL,
    attempt int NOT NULL,
    failed boolean NOT NULL,
    output text,
    messages text,
    log text,
    piece_files text COLLATE "C",
    pieces text,
    PRIMARY KEY (batch_key, row_no)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.5);
COMMENT ON COLUMN rowmill.outcomes.output IS 'JSON, to the letter';
COMMENT ON COLUMN rowmill.outcomes.messages IS 'a JSON array; NULL for none';
COMMENT ON COLUMN rowmill.outcomes.piece_files IS 'the files of the pieces, a character for each: chr(48 + file_no); NULL for none';
COMMENT ON COLUMN rowmill.outcomes.pieces IS 'pieces of output files in the order in which the row gave them, with E''\x1a2'' between two; NULL for none';

CREATE TABLE rowmill.output_files (
    batch_key bigint NOT NULL,
    file_no int NOT NULL,
    name text COLLATE "C" NOT NULL,
    object text,
    size_bytes bigint,
    PRIMARY KEY (batch_key, file_no),
    UNIQUE (batch_key, name)
);
COMMENT ON COLUMN rowmill.output_files.object IS 'set when the batch was joined';
COMMENT ON COLUMN rowmill.output_files.size_bytes IS 'set when the batch was joined';
