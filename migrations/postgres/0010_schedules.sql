-- What is submitted again and again. (The table `schedule` is the virtual time of claims.)
CREATE TABLE rowmill.schedules (
    app text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    schedule_id uuid NOT NULL UNIQUE,
    op text COLLATE "C" NOT NULL CONSTRAINT op_is_lower_case CHECK (op = lower(op)),
    kind text NOT NULL CONSTRAINT kind_is_known CHECK (kind IN ('batch', 'slow_query')),
    cron text NOT NULL,
    zone text NOT NULL,
    terms text,
    context text NOT NULL,
    row_count int NOT NULL CONSTRAINT at_least_one_row CHECK (row_count >= 1),
    missed text NOT NULL CONSTRAINT missed_is_known CHECK (missed IN ('skip', 'once', 'all')),
    overlap text NOT NULL CONSTRAINT overlap_is_known CHECK (overlap IN ('allow', 'skip')),
    paused boolean NOT NULL DEFAULT false,
    token bigint NOT NULL,
    next_at bigint NOT NULL,
    last_at bigint,
    last_batch uuid,
    error text,
    PRIMARY KEY (app, name)
    -- Each tick updates its schedule.
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
COMMENT ON COLUMN rowmill.schedules.schedule_id IS 'made with the schedule; the ids of its batches are made from it';
COMMENT ON COLUMN rowmill.schedules.zone IS 'a time zone of IANA, in which the cron line is read';
COMMENT ON COLUMN rowmill.schedules.terms IS 'of what is submitted, as far as they are said, as JSON';
COMMENT ON COLUMN rowmill.schedules.context IS 'JSON, to the letter';
COMMENT ON COLUMN rowmill.schedules.token IS 'changes when the schedule is changed, paused or resumed, by chance';
COMMENT ON COLUMN rowmill.schedules.next_at IS 'the tick that comes next; moved by ticks';
COMMENT ON COLUMN rowmill.schedules.last_at IS 'the last tick that was taken up; set by ticks';
COMMENT ON COLUMN rowmill.schedules.last_batch IS 'set by ticks that submit';
COMMENT ON COLUMN rowmill.schedules.error IS 'why the last tick could not be submitted; cleared by the next, and when the schedule is changed';
CREATE INDEX schedules_by_tick ON rowmill.schedules (next_at) WHERE NOT paused;

-- The rows of every batch that a schedule submits.
CREATE TABLE rowmill.schedule_rows (
    schedule_id uuid NOT NULL,
    row_no int NOT NULL,
    line bigint NOT NULL,
    input text NOT NULL,
    PRIMARY KEY (schedule_id, row_no)
);
COMMENT ON COLUMN rowmill.schedule_rows.input IS 'JSON, to the letter';
