-- How often an asynchronous invocation could not begin for what may be its function's own fault, and when it is tried again, in
-- Unix milliseconds.
ALTER TABLE invocations ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invocations ADD COLUMN retry_at INTEGER;
-- 0 while only clients know of it that wait for its end: then it may be taken back before it begins.
ALTER TABLE invocations ADD COLUMN promised INTEGER NOT NULL DEFAULT 1;

-- A submit's or an update's key holds what that came to, whatever becomes of the function later.
CREATE TABLE keys (
    operation      TEXT NOT NULL CHECK (operation IN ('submit', 'execute')),
    key            TEXT NOT NULL,
    -- Of what was asked for, so that the key of one request is not another's.
    request_sha256 TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    -- JSON: functionId, imageId, version, name.
    result         TEXT,
    invocation_id  TEXT REFERENCES invocations (id) ON DELETE CASCADE,
    PRIMARY KEY (operation, key)
) STRICT, WITHOUT ROWID;

-- What earlier requests came to was not written down: for those it is what their functions are now.
INSERT INTO keys
SELECT operation, key, request_sha256, idempotency_keys.created_at,
    CASE WHEN functions.id IS NULL THEN NULL
        ELSE json_object('functionId', functions.id, 'imageId', image_id, 'version', version, 'name', name) END,
    invocation_id
FROM idempotency_keys LEFT JOIN functions ON functions.id = idempotency_keys.function_id
    LEFT JOIN versions ON versions.function_id = functions.id AND versions.number = functions.version;

DROP TABLE idempotency_keys;
ALTER TABLE keys RENAME TO idempotency_keys;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_of_invocations ON idempotency_keys (invocation_id);
