-- Executions, in the order in which they came. Times are Unix milliseconds.
CREATE TABLE invocations (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    function_id     TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    -- 'queued' and 'running' are those of asynchronous ones that have not ended; what is 'running' at a start was lost.
    outcome         TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    executed_at     INTEGER,
    exit_code       INTEGER,
    error           TEXT,
    start           TEXT,
    truncated       INTEGER NOT NULL DEFAULT 0,
    queued_us       INTEGER,
    duration_us     INTEGER,
    cpu_us          INTEGER,
    peak_memory     INTEGER,
    -- Cut at what is kept, unlike what the client of a synchronous execution gets.
    input           BLOB NOT NULL,
    stdout          BLOB NOT NULL DEFAULT x'',
    stderr          BLOB NOT NULL DEFAULT x''
) STRICT;

CREATE INDEX invocations_of_a_function ON invocations (function_id, number);
CREATE INDEX invocations_by_age ON invocations (created_at);
-- The few that have not ended.
CREATE INDEX invocations_open ON invocations (number) WHERE outcome IN ('queued', 'running');

-- What the requests with an `Idempotency-Key` came to. Forgotten with it, or after a day.
CREATE TABLE idempotency_keys (
    operation      TEXT NOT NULL CHECK (operation IN ('submit', 'execute')),
    key            TEXT NOT NULL,
    -- Of what was asked for, so that the key of one request is not another's.
    request_sha256 TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    function_id    TEXT REFERENCES functions (id) ON DELETE CASCADE,
    invocation_id  TEXT REFERENCES invocations (id) ON DELETE CASCADE,
    PRIMARY KEY (operation, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_of_functions ON idempotency_keys (function_id);
CREATE INDEX idempotency_keys_of_invocations ON idempotency_keys (invocation_id);
