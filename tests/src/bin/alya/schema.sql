-- Alya's tables of batches and their rows, with the columns and indexes of its migrations 001 and 002.
CREATE SCHEMA alya;

CREATE TYPE alya.status_enum AS ENUM ('queued', 'inprog', 'success', 'failed', 'aborted', 'wait');

CREATE TABLE alya.batches (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    app varchar(255) NOT NULL,
    op varchar(255) NOT NULL CHECK (op = lower(op)),
    context jsonb NOT NULL,
    inputfile varchar(255),
    status alya.status_enum NOT NULL,
    reqat timestamp NOT NULL,
    doneat timestamp,
    outputfiles jsonb,
    nsuccess int,
    nfailed int,
    naborted int,
    created_at timestamp DEFAULT now()
);
CREATE INDEX ON alya.batches (app);
CREATE INDEX ON alya.batches (app, op);

CREATE TABLE alya.batchrows (
    rowid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch uuid NOT NULL REFERENCES alya.batches (id),
    line int NOT NULL,
    input jsonb NOT NULL,
    status alya.status_enum NOT NULL,
    reqat timestamp NOT NULL,
    doneat timestamp,
    res jsonb,
    blobrows jsonb,
    messages jsonb,
    doneby varchar(255),
    created_at timestamp DEFAULT now()
);
CREATE INDEX ON alya.batchrows (status);
CREATE INDEX ON alya.batchrows (batch, status);
