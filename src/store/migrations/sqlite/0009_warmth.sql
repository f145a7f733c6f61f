-- How many invocations of a function run at one time, and how many instances are kept; null for the default.
ALTER TABLE functions ADD COLUMN concurrency INTEGER;
ALTER TABLE functions ADD COLUMN keep_warm INTEGER;
