-- The batches of an app are listed, the newest first, and found by the files that their rows came from.

CREATE INDEX batches_by_app ON batches (app, batch_key);

-- The object that the file was read from. It belongs to the submitter: pruning leaves it alone.
ALTER TABLE batch_files ADD COLUMN source_object TEXT;
CREATE INDEX batch_files_by_name ON batch_files (name, batch_key);
CREATE INDEX batch_files_by_digest ON batch_files (sha256, batch_key);
