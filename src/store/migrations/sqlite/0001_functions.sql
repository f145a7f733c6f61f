-- Functions, in the order in which they came. Times are Unix seconds, sizes are bytes.
CREATE TABLE functions (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    language      TEXT NOT NULL,
    -- The file that is run; NULL for a compiled program.
    entry         TEXT,
    created_at    INTEGER NOT NULL,
    last_executed INTEGER,
    executions    INTEGER NOT NULL DEFAULT 0,
    -- Limits of its own; NULL for those of the platform.
    memory_limit  INTEGER,
    cpu_limit     REAL,
    run_timeout   REAL,
    zip_size      INTEGER NOT NULL,
    zip_sha256    TEXT NOT NULL,
    unpacked_size INTEGER NOT NULL,
    image_id      TEXT NOT NULL,
    image_size    INTEGER NOT NULL,
    -- 'rebuild' when the image is known to be gone.
    state         TEXT NOT NULL CHECK (state IN ('ready', 'rebuild'))
) STRICT;

-- Apart from the functions, so that to list those does not page through these.
CREATE TABLE packages (
    function_id TEXT PRIMARY KEY REFERENCES functions (id) ON DELETE CASCADE,
    zip         BLOB NOT NULL
) STRICT;

CREATE TABLE build_logs (
    function_id TEXT PRIMARY KEY REFERENCES functions (id) ON DELETE CASCADE,
    log         TEXT NOT NULL
) STRICT;
