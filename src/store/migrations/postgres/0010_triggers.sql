-- What an invocation was begun by; null for a request to the API.
ALTER TABLE invocations ADD COLUMN begun_by TEXT;
