-- What was built of a function's zips. Its other columns stay with the function, whatever version it is at.
CREATE TABLE versions (
    function_id   TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    number        INTEGER NOT NULL,
    language      TEXT NOT NULL,
    -- The file that is run; NULL for a compiled program.
    entry         TEXT,
    created_at    INTEGER NOT NULL,
    zip_size      INTEGER NOT NULL,
    zip_sha256    TEXT NOT NULL,
    unpacked_size INTEGER NOT NULL,
    image_id      TEXT NOT NULL,
    image_size    INTEGER NOT NULL,
    -- 'rebuild' when the image is known to be gone.
    state         TEXT NOT NULL CHECK (state IN ('ready', 'rebuild')),
    PRIMARY KEY (function_id, number)
) STRICT, WITHOUT ROWID;

INSERT INTO versions
SELECT id, 1, language, entry, created_at, zip_size, zip_sha256, unpacked_size, image_id, image_size, state FROM functions;

ALTER TABLE functions DROP COLUMN language;
ALTER TABLE functions DROP COLUMN entry;
ALTER TABLE functions DROP COLUMN zip_size;
ALTER TABLE functions DROP COLUMN zip_sha256;
ALTER TABLE functions DROP COLUMN unpacked_size;
ALTER TABLE functions DROP COLUMN image_id;
ALTER TABLE functions DROP COLUMN image_size;
ALTER TABLE functions DROP COLUMN state;
-- The one that is run, and the one before it, whose image is kept for a rollback.
ALTER TABLE functions ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE functions ADD COLUMN former INTEGER;

CREATE TABLE zips (
    function_id TEXT NOT NULL,
    version     INTEGER NOT NULL,
    zip         BLOB NOT NULL,
    PRIMARY KEY (function_id, version),
    FOREIGN KEY (function_id, version) REFERENCES versions (function_id, number) ON DELETE CASCADE
) STRICT;
INSERT INTO zips SELECT function_id, 1, zip FROM packages;
DROP TABLE packages;

CREATE TABLE version_logs (
    function_id TEXT NOT NULL,
    version     INTEGER NOT NULL,
    log         TEXT NOT NULL,
    PRIMARY KEY (function_id, version),
    FOREIGN KEY (function_id, version) REFERENCES versions (function_id, number) ON DELETE CASCADE
) STRICT;
INSERT INTO version_logs SELECT function_id, 1, log FROM build_logs;
DROP TABLE build_logs;

-- Environment and secrets of functions.
CREATE TABLE variables (
    function_id TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    value       TEXT NOT NULL,
    is_secret   INTEGER NOT NULL,
    PRIMARY KEY (function_id, name)
) STRICT, WITHOUT ROWID;

-- With which version it ran. NULL before that, and for those from before there were versions.
ALTER TABLE invocations ADD COLUMN version INTEGER;
