-- Times at which functions run by themselves. Times are Unix seconds.
CREATE TABLE schedules (
    function_id     TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    cron            TEXT NOT NULL,
    timezone        TEXT NOT NULL,
    -- JSON.
    input           BYTEA NOT NULL,
    enabled         BIGINT NOT NULL,
    overlap         TEXT NOT NULL,
    missed          TEXT NOT NULL,
    -- The number of the definition: a step that is based on an earlier one is void.
    revision        BIGINT NOT NULL DEFAULT 1,
    -- The next slot; NULL while there is none. The node that moves this on has the slot.
    next_at         BIGINT,
    -- The time up to which all slots have been decided on.
    settled_at      BIGINT NOT NULL,
    -- The last run. The history keeps the run.
    last_invocation TEXT,
    -- The last slot without a run, and why.
    skipped_at      BIGINT,
    skip_reason     TEXT,
    PRIMARY KEY (function_id, name)
);

CREATE INDEX schedules_by_slot ON schedules (next_at, function_id, name) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_by_settlement ON schedules (settled_at) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_by_invocation ON schedules (last_invocation);

-- The runs of schedules that have not ended.
CREATE INDEX invocations_of_schedules ON invocations (function_id, begun_by)
    WHERE outcome IN ('queued', 'running') AND begun_by IS NOT NULL;
