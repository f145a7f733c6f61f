-- The history of all functions.
CREATE INDEX invocations_in_order ON invocations (recorded_at, number);
-- The few that failed, in the order of the history.
CREATE INDEX invocations_failed ON invocations (recorded_at, number)
    WHERE outcome IN ('lost', 'exit', 'signal', 'out_of_memory', 'timeout');
