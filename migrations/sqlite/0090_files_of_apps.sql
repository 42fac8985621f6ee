-- Files are looked up by app, too: a page of one app's batches does not pass over the files of others.

ALTER TABLE batch_files ADD COLUMN app TEXT NOT NULL DEFAULT ''; -- the app of the batch
UPDATE batch_files SET app = (SELECT b.app FROM batches b WHERE b.batch_key = batch_files.batch_key)
    WHERE EXISTS (SELECT 1 FROM batches b WHERE b.batch_key = batch_files.batch_key);

DROP INDEX batch_files_by_name;
DROP INDEX batch_files_by_digest;
CREATE INDEX batch_files_by_name ON batch_files (app, name, batch_key);
CREATE INDEX batch_files_by_digest ON batch_files (app, sha256, batch_key);
