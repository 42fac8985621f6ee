-- The files that rows of batches came from.
CREATE TABLE batch_files (
    batch_key INTEGER NOT NULL,
    first_row INTEGER NOT NULL,               -- the first of its rows
    name TEXT NOT NULL,                       -- the sender's
    form TEXT NOT NULL,                       -- how it held its rows
    size_bytes INTEGER NOT NULL,              -- as it came
    sha256 TEXT NOT NULL,                     -- of its contents as they came
    object TEXT,                              -- where it is kept, if it is
    PRIMARY KEY (batch_key, first_row),
    CONSTRAINT rows_are_numbered_from_one CHECK (first_row >= 1),
    CONSTRAINT a_file_has_no_negative_size CHECK (size_bytes >= 0)
) STRICT, WITHOUT ROWID;
