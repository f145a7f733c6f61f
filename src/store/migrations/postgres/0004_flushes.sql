-- The number of the last flush of the history that counts executions, of each process: a flush that is tried again, as
-- the answer to its commit was lost, must not add to the counts again.
CREATE TABLE flushes (
    run    TEXT PRIMARY KEY,
    number BIGINT NOT NULL
);
