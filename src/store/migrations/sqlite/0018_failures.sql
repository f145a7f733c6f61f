-- The few that failed, in the order of the history.
CREATE INDEX invocations_failed ON invocations (number)
    WHERE outcome IN ('lost', 'exit', 'signal', 'out_of_memory', 'timeout');
