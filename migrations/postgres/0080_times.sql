-- Writes a time in milliseconds as the program does (model::show_time): as a whole number of the
-- largest unit that divides it, such as 90d, 5s or 1500ms.
CREATE FUNCTION rowmill.show_time(millis bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN millis = 0 THEN '0s'
        WHEN millis % 86400000 = 0 THEN millis / 86400000 || 'd'
        WHEN millis % 3600000 = 0 THEN millis / 3600000 || 'h'
        WHEN millis % 60000 = 0 THEN millis / 60000 || 'm'
        WHEN millis % 1000 = 0 THEN millis / 1000 || 's'
        ELSE millis || 'ms'
    END
$$;
