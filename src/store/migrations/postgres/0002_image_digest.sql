-- The digest of the image in the registry of DOCKER_IMAGE_PREFIX; NULL for an image that no registry has.
ALTER TABLE versions ADD COLUMN digest TEXT;
