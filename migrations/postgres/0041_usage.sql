-- What recorded rows used, appended by records and folded by workers: a record that moved a counter would wait for all others of its operation.
CREATE TABLE rowmill.usage_entries (
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    hour int NOT NULL,
    success bigint NOT NULL,
    failed bigint NOT NULL,
    fuel bigint NOT NULL,
    retries bigint NOT NULL,
    retry_fuel bigint NOT NULL,
    micros bigint NOT NULL,
    input_bytes bigint NOT NULL,
    output_bytes bigint NOT NULL,
    file_bytes bigint NOT NULL,
    fuel_max bigint NOT NULL,
    codes text,
    buckets int[],
    bucket_rows bigint[]
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON COLUMN rowmill.usage_entries.hour IS 'hours since 1970-01-01T00:00:00Z';
COMMENT ON COLUMN rowmill.usage_entries.fuel IS 'of attempts that ended rows';
COMMENT ON COLUMN rowmill.usage_entries.retry_fuel IS 'of attempts that were recorded and asked for another';
COMMENT ON COLUMN rowmill.usage_entries.codes IS 'rows by the code of the runtime that they ended with, as JSON, NULL for none';
COMMENT ON COLUMN rowmill.usage_entries.buckets IS 'of fuel (FuelHistogram), each with its rows in bucket_rows';

CREATE TABLE rowmill.usage (
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    hour int NOT NULL,
    success bigint NOT NULL,
    failed bigint NOT NULL,
    fuel bigint NOT NULL,
    retries bigint NOT NULL,
    retry_fuel bigint NOT NULL,
    micros bigint NOT NULL,
    input_bytes bigint NOT NULL,
    output_bytes bigint NOT NULL,
    file_bytes bigint NOT NULL,
    fuel_max bigint NOT NULL,
    PRIMARY KEY (app, hour, op, version)
) WITH (fillfactor = 70);

CREATE TABLE rowmill.usage_codes (
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    hour int NOT NULL,
    code text COLLATE "C" NOT NULL,
    rows bigint NOT NULL,
    PRIMARY KEY (app, hour, op, version, code)
);

-- How much fuel the rows of a version used, in buckets.
CREATE TABLE rowmill.usage_fuel (
    app text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    bucket int NOT NULL,
    rows bigint NOT NULL,
    PRIMARY KEY (app, op, version, bucket)
) WITH (fillfactor = 70);

-- Takes up what records appended, some thousand entries at most. One at a time does; who comes meanwhile has nothing to do.
CREATE FUNCTION rowmill.fold_usage() RETURNS bigint LANGUAGE plpgsql VOLATILE SET jit = off AS $$
DECLARE
    folded bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7881403277) THEN RETURN 0; END IF;
    WITH taken AS (
        DELETE FROM rowmill.usage_entries e WHERE e.ctid = ANY (ARRAY(SELECT f.ctid FROM rowmill.usage_entries f LIMIT 10000)) RETURNING *),
    sums AS (
        INSERT INTO rowmill.usage AS u (app, op, version, hour, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max)
        SELECT app, op, version, hour, sum(success), sum(failed), sum(fuel), sum(retries), sum(retry_fuel), sum(micros), sum(input_bytes), sum(output_bytes), sum(file_bytes), max(fuel_max) FROM taken
        GROUP BY app, op, version, hour
        ON CONFLICT (app, hour, op, version) DO UPDATE SET success = u.success + excluded.success,
            failed = u.failed + excluded.failed,
            fuel = u.fuel + excluded.fuel,
            retries = u.retries + excluded.retries,
            retry_fuel = u.retry_fuel + excluded.retry_fuel,
            micros = u.micros + excluded.micros,
            input_bytes = u.input_bytes + excluded.input_bytes,
            output_bytes = u.output_bytes + excluded.output_bytes,
            file_bytes = u.file_bytes + excluded.file_bytes,
            fuel_max = greatest(u.fuel_max, excluded.fuel_max)),
    codes AS (
        INSERT INTO rowmill.usage_codes AS u (app, op, version, hour, code, rows)
        SELECT t.app, t.op, t.version, t.hour, c.key, sum(c.value::bigint) FROM taken t CROSS JOIN LATERAL json_each_text(t.codes::json) c
        GROUP BY t.app, t.op, t.version, t.hour, c.key
        ON CONFLICT (app, hour, op, version, code) DO UPDATE SET rows = u.rows + excluded.rows),
    fuel AS (
        INSERT INTO rowmill.usage_fuel AS u (app, op, version, bucket, rows)
        SELECT t.app, t.op, t.version, f.bucket, sum(f.rows) FROM taken t CROSS JOIN LATERAL unnest(t.buckets, t.bucket_rows) f (bucket, rows)
        GROUP BY t.app, t.op, t.version, f.bucket
        ON CONFLICT (app, op, version, bucket) DO UPDATE SET rows = u.rows + excluded.rows)
    SELECT count(*) INTO folded FROM taken;
    RETURN folded;
END
$$;
