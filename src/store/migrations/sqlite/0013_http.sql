-- Whose requests reach a function over HTTP; null for nobody's.
ALTER TABLE functions ADD COLUMN http TEXT;
-- A function's name is the function's place in URLs.
CREATE UNIQUE INDEX functions_http_name ON functions (name) WHERE http IS NOT NULL;
