-- Which rows of a batch may meet in one instance of its processor; NULL for the default.
ALTER TABLE policies ADD COLUMN isolation TEXT CONSTRAINT isolation_is_known CHECK (isolation IN ('lease', 'row', 'warm'));
