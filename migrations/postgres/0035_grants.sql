ALTER TABLE rowmill.apps ADD COLUMN grants text;
COMMENT ON COLUMN rowmill.apps.grants IS 'what processors may reach beyond their rows, as JSON, NULL for nothing; values of secrets never stand here; set by operators';
