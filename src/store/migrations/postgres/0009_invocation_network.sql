-- What an invocation's connections did, as JSON; null where there was none.
ALTER TABLE invocations ADD COLUMN network TEXT;
