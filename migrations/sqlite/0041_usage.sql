-- What recorded rows used, by hours since 1970-01-01T00:00:00Z; moved in the transaction that appends the outcomes.
CREATE TABLE usage (
    app TEXT NOT NULL,
    op TEXT NOT NULL,
    version INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    success INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    fuel INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    retry_fuel INTEGER NOT NULL,
    micros INTEGER NOT NULL,
    input_bytes INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    file_bytes INTEGER NOT NULL,
    fuel_max INTEGER NOT NULL,
    PRIMARY KEY (app, hour, op, version)
) STRICT, WITHOUT ROWID;

-- Rows by the code of the runtime that they ended with.
CREATE TABLE usage_codes (
    app TEXT NOT NULL,
    op TEXT NOT NULL,
    version INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    code TEXT NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (app, hour, op, version, code)
) STRICT, WITHOUT ROWID;

-- How much fuel the rows of a version used, in buckets (FuelHistogram).
CREATE TABLE usage_fuel (
    app TEXT NOT NULL,
    op TEXT NOT NULL,
    version INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (app, op, version, bucket)
) STRICT, WITHOUT ROWID;
