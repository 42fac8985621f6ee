-- The batches of an app are listed, the newest first, and found by the files that their rows came from.

CREATE INDEX batches_by_app ON rowmill.batches (app, batch_key);

ALTER TABLE rowmill.batch_files ADD COLUMN source_object text;
COMMENT ON COLUMN rowmill.batch_files.source_object IS
    'the object that the file was read from, NULL for other files; it belongs to the submitter: pruning leaves it alone';
-- By a hash of the name: names may be longer than an entry of an index.
CREATE INDEX batch_files_by_name ON rowmill.batch_files (hashtextextended(name, 0), batch_key);
CREATE INDEX batch_files_by_digest ON rowmill.batch_files (hashtextextended(sha256, 0), batch_key);
