-- Each row of a batch has a line of its own. Lines that grow need no index to be so.
CREATE UNIQUE INDEX each_row_of_a_batch_has_a_line_of_its_own ON line_order (batch_key, line);
