-- What a function may reach, in JSON; null for nothing.
ALTER TABLE functions ADD COLUMN network TEXT;
