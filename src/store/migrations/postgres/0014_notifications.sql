-- Whom the ends of a function's asynchronous invocations are told to, which ends are told ('failure', 'success', or both
-- with a comma between), and the key that signs what is told; null for nobody.
ALTER TABLE functions ADD COLUMN notify_url TEXT;
ALTER TABLE functions ADD COLUMN notify_on TEXT;
ALTER TABLE functions ADD COLUMN notify_key TEXT;
-- 1 where the key is sealed by a key of SECRETS_KEY_FILE.
ALTER TABLE functions ADD COLUMN notify_sealed BIGINT NOT NULL DEFAULT 0;

-- Ends of invocations that are told. A row is written in the transaction of the end, and has what is told: the
-- invocation's own row may be pruned before the receiver answers. Times are in milliseconds by the clock of the
-- database.
CREATE TABLE notifications (
    invocation_id TEXT PRIMARY KEY,
    function_id   TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    function_name TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    exit_code     BIGINT,
    error         TEXT,
    begun_by      TEXT,
    version       BIGINT,
    executed_at   BIGINT,
    duration_us   BIGINT,
    ended_at      BIGINT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    tries         BIGINT NOT NULL DEFAULT 0,
    last_try_at   BIGINT,
    -- While a try is under way: the time from which on another process may try.
    next_try_at   BIGINT NOT NULL,
    -- The run of the process whose try is under way.
    claimed_by    TEXT,
    last_status   BIGINT,
    last_error    TEXT
);

CREATE INDEX notifications_pending ON notifications (function_id, next_try_at) WHERE state = 'pending';
CREATE INDEX notifications_of_a_function ON notifications (function_id, ended_at);
CREATE INDEX notifications_by_age ON notifications (ended_at);
