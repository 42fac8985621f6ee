-- Files are looked up by app, too: a page of one app's batches does not pass over the files of others.

ALTER TABLE rowmill.batch_files ADD COLUMN app text COLLATE "C";
COMMENT ON COLUMN rowmill.batch_files.app IS 'the app of the batch';
UPDATE rowmill.batch_files f SET app = b.app FROM rowmill.batches b WHERE b.batch_key = f.batch_key;
ALTER TABLE rowmill.batch_files ALTER COLUMN app SET NOT NULL;

DROP INDEX rowmill.batch_files_by_name;
DROP INDEX rowmill.batch_files_by_digest;
-- By a hash of the name: names may be longer than an entry of an index.
CREATE INDEX batch_files_by_name ON rowmill.batch_files (app, hashtextextended(name, 0), batch_key);
CREATE INDEX batch_files_by_digest ON rowmill.batch_files (app, hashtextextended(sha256, 0), batch_key);
