-- How many invocations of a function run at one time, and how many instances are kept; null for the default.
ALTER TABLE functions ADD COLUMN concurrency BIGINT;
ALTER TABLE functions ADD COLUMN keep_warm BIGINT;
