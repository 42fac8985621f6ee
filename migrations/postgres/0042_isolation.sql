ALTER TABLE rowmill.policies ADD COLUMN isolation text CONSTRAINT isolation_is_known CHECK (isolation IN ('lease', 'row', 'warm'));
COMMENT ON COLUMN rowmill.policies.isolation IS 'which rows of a batch may meet in one instance of its processor, NULL for the default';
