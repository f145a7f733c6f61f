-- When a flush was written down. A process that was cut off for long and comes back may try its last flush again.
ALTER TABLE flushes ADD COLUMN noted_at BIGINT NOT NULL DEFAULT 0;
