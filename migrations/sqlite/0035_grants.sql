ALTER TABLE apps ADD COLUMN grants TEXT; -- what processors may reach beyond their rows, as JSON; NULL for nothing; values of secrets never stand here
