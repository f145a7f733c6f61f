-- Tokens of clients. Times are Unix seconds, but that of the making, which is Unix milliseconds.
CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    -- The SHA-256 of the token's text, in hexadecimal digits. The text itself is nowhere.
    sha256     TEXT NOT NULL UNIQUE,
    -- Names of scopes, with commas between.
    scopes     TEXT NOT NULL,
    -- Ids of functions, with commas between; NULL for all functions. A function may be gone.
    functions  TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used  BIGINT
);

-- The number of the last change of a token: a token that is new or gone is a change, as a function's new state is.
ALTER TABLE changes ADD COLUMN tokens BIGINT NOT NULL DEFAULT 0;
