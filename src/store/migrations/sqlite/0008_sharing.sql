-- Runtime images that a node has pushed, by their names: the nodes take one image, so that they share its layers.
CREATE TABLE runtime_images (
    name   TEXT PRIMARY KEY,
    -- The digest of the image in the registry of DOCKER_IMAGE_PREFIX.
    digest TEXT NOT NULL
);

-- The runs of open invocations are looked for again and again: by this index the look goes from run to run, and a
-- node finds its own rows.
CREATE INDEX invocations_by_run ON invocations (coalesce(node, ''), number) WHERE outcome IN ('queued', 'running');
