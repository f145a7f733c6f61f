-- A process that serves from this store, from its start on. Rows that a process has begun to work on name its run, so
-- that a row of a process that is gone is known.
CREATE TABLE nodes (
    run       TEXT PRIMARY KEY,
    -- The id that the node's DATA_DIR has, at every start.
    id        TEXT NOT NULL,
    -- Where the other nodes reach the node; NULL for a node alone.
    url       TEXT,
    -- The version of the program.
    version   TEXT NOT NULL,
    -- The last heartbeat, in milliseconds by the clock of the database.
    seen_at   BIGINT NOT NULL,
    instances BIGINT NOT NULL DEFAULT 0,
    is_ready  BIGINT NOT NULL DEFAULT 0,
    -- The number of the last change of a function that the node has taken over.
    applied   BIGINT NOT NULL DEFAULT 0
);

-- The number of the last change of a function. A change locks the row until its end, so that changes are seen in the
-- order of their numbers.
CREATE TABLE changes (value BIGINT NOT NULL);
INSERT INTO changes VALUES (0);

-- A change compares the generation that the change is based on, and sets the next one.
ALTER TABLE functions ADD COLUMN generation BIGINT NOT NULL DEFAULT 1;
ALTER TABLE functions ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE functions ADD COLUMN last_version BIGINT NOT NULL DEFAULT 1;
UPDATE functions SET last_version =
    coalesce((SELECT max(versions.number) FROM versions WHERE function_id = functions.id), 1);
CREATE INDEX functions_by_change ON functions (changed);

-- Deleted functions, for nodes that do not know of the deletion yet.
CREATE TABLE deletions (
    function_id TEXT PRIMARY KEY,
    changed     BIGINT NOT NULL,
    -- In milliseconds by the clock of the database.
    deleted_at  BIGINT NOT NULL
);

CREATE INDEX deletions_by_change ON deletions (changed);

-- The run of the node that runs or will run an asynchronous invocation, and the number of the node's claim. A node that
-- has lost its claim can't begin or end the invocation any more.
ALTER TABLE invocations ADD COLUMN node TEXT;
ALTER TABLE invocations ADD COLUMN attempt BIGINT NOT NULL DEFAULT 0;
-- When the row was written, in milliseconds by the clock of the database: pages of the history go by this and the number.
-- Rows from before stay at 0, and are first.
ALTER TABLE invocations ADD COLUMN recorded_at BIGINT NOT NULL DEFAULT 0;
DROP INDEX invocations_of_a_function;
CREATE INDEX invocations_of_a_function ON invocations (function_id, recorded_at, number);

-- The run of the node that carries out the request; NULL when the key has its result.
ALTER TABLE idempotency_keys ADD COLUMN claimed_by TEXT;

-- Work that one node does for all: the run of the node that does the work, for as long as the node lives.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    run  TEXT NOT NULL
);

-- 1 where a secret's value is sealed by a key of SECRETS_KEY_FILE.
ALTER TABLE variables ADD COLUMN sealed BIGINT NOT NULL DEFAULT 0;
