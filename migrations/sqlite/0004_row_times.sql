-- About the time per row of the batches that ended last: the next batch begins with it.
ALTER TABLE processors ADD COLUMN row_micros INTEGER;
