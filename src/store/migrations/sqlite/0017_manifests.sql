-- What a version's function.toml says, as JSON; null for a version without the file.
ALTER TABLE versions ADD COLUMN manifest TEXT;
-- The names of the settings that clients have set, as a JSON list; null where all that is set was set by clients.
ALTER TABLE functions ADD COLUMN pins TEXT;
-- 1 for a schedule that the function's version declares.
ALTER TABLE schedules ADD COLUMN declared INTEGER NOT NULL DEFAULT 0;
