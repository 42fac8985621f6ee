-- Files that are appended in parts. The rows of an unfinished file stand behind the last row that its batch counts: no claim, release, quota of the batch or reader
-- takes them for rows of the batch. The last part counts them all at once; when there is no last part they are removed.
CREATE TABLE open_appends (
    batch_key INTEGER PRIMARY KEY,
    token INTEGER NOT NULL,        -- of the process that appends: a part with another token is refused
    append_key TEXT,               -- the idempotency key of the append, NULL without one
    row_count INTEGER NOT NULL,    -- rows of the batch and of the file so far; line_last and lines_ascend likewise
    line_last INTEGER NOT NULL,
    lines_ascend INTEGER NOT NULL,
    expires_at INTEGER NOT NULL    -- each part moves it forward; after it others remove the rows
) STRICT;

-- Appends with a key that were completed.
CREATE TABLE append_keys (
    batch_key INTEGER NOT NULL,
    append_key TEXT NOT NULL,
    digest TEXT NOT NULL,          -- of the file
    row_count INTEGER NOT NULL,    -- rows that the batch had then
    PRIMARY KEY (batch_key, append_key)
) STRICT, WITHOUT ROWID;

-- The last part counts the rows in the batch before it ends the append: then there are none to remove.
CREATE TRIGGER take_back_rows BEFORE DELETE ON open_appends
BEGIN
    DELETE FROM line_order WHERE batch_key = OLD.batch_key AND OLD.lines_ascend = 0 AND EXISTS (
        SELECT 1 FROM batches b WHERE b.batch_key = OLD.batch_key AND b.row_count < OLD.row_count AND (b.lines_ascend = 1 OR line_order.row_no > b.row_count));
    DELETE FROM rows WHERE batch_key = OLD.batch_key AND row_no > (SELECT b.row_count FROM batches b WHERE b.batch_key = OLD.batch_key);
END;

-- Whatever ends the hold (a release, an abort, a deadline) removes the rows of an unfinished file in its transaction.
CREATE TRIGGER end_open_append AFTER UPDATE OF status ON batches
WHEN OLD.status = 'wait' AND NEW.status <> 'wait'
BEGIN
    DELETE FROM open_appends WHERE batch_key = NEW.batch_key;
END;

CREATE TRIGGER forget_appends AFTER DELETE ON batches
BEGIN
    DELETE FROM open_appends WHERE batch_key = OLD.batch_key;
    DELETE FROM append_keys WHERE batch_key = OLD.batch_key;
END;
