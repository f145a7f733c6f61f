-- What a function asks to be preloaded; null for the operator's default. What its last instance has found out, as JSON.
ALTER TABLE functions ADD COLUMN preload TEXT;
ALTER TABLE functions ADD COLUMN preloaded TEXT;
