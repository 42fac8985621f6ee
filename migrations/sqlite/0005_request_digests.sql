-- What was asked for, where the same may be asked for again.
ALTER TABLE batches ADD COLUMN request_digest TEXT;
