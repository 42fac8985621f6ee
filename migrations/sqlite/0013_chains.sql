-- Chained batches: their rows are the outputs of another batch's rows, made when that has ended.
ALTER TABLE batches ADD COLUMN after_batch TEXT;     -- its rows are the outputs of this batch's rows
ALTER TABLE batches ADD COLUMN after_condition TEXT CONSTRAINT condition_is_known CHECK (after_condition IN ('success', 'any')); -- how that must have ended

-- Chained batches that are not made yet, and how far they are. A row goes when its batch has its rows, or was aborted.
CREATE TABLE chains (
    batch_key INTEGER PRIMARY KEY,
    first_key INTEGER NOT NULL,               -- the batch that it comes after
    ready INTEGER NOT NULL,                   -- that has ended, or is gone; set in the transaction that ends it
    begun INTEGER NOT NULL DEFAULT 0,         -- rows are being made: from now on that is not retried until they are
    line INTEGER NOT NULL DEFAULT -1,         -- the last row that was looked at; moved with the rows that are made
    row_no INTEGER NOT NULL DEFAULT 0,
    taken INTEGER NOT NULL DEFAULT 0          -- rows that were looked at: what has the fewest goes first
) STRICT;
CREATE INDEX chains_by_first ON chains (first_key);
CREATE INDEX chains_ready ON chains (batch_key) WHERE ready = 1;
