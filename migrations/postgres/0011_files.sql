-- The files that rows of batches came from. Written while their batch is held.
CREATE TABLE rowmill.batch_files (
    batch_key bigint NOT NULL,
    first_row bigint NOT NULL CONSTRAINT rows_are_numbered_from_one CHECK (first_row >= 1),
    name text NOT NULL,
    form text NOT NULL,
    size_bytes bigint NOT NULL CONSTRAINT a_file_has_no_negative_size CHECK (size_bytes >= 0),
    sha256 text NOT NULL,
    object text,
    PRIMARY KEY (batch_key, first_row)
);
COMMENT ON COLUMN rowmill.batch_files.first_row IS 'the first of its rows';
COMMENT ON COLUMN rowmill.batch_files.name IS 'what those who sent it called it';
COMMENT ON COLUMN rowmill.batch_files.form IS 'how it held its rows, and whether it was compressed';
COMMENT ON COLUMN rowmill.batch_files.size_bytes IS 'as it came';
COMMENT ON COLUMN rowmill.batch_files.sha256 IS 'of its contents as they came';
COMMENT ON COLUMN rowmill.batch_files.object IS 'where it is kept in the object store, NULL when it is not';
