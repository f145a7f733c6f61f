// What a function can leave in the container, and its removal.

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
)

// isClean returns whether the container holds no file and no IPC object of a function.
func isClean() bool {
	for _, folder := range writable {
		entries, err := os.ReadDir(folder)
		if len(entries) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
			return false
		}
	}
	for _, path := range sysvIPC {
		// The first line is the table's header.
		table, err := os.ReadFile(path)
		if err == nil && bytes.Count(table, []byte("\n")) > 1 {
			return false
		}
	}
	return true
}

// cleanUp removes the files that a function left, and fails when anything is left. IPC objects are not removed: their
// removal would cost more than the start of a new container.
func cleanUp() error {
	for _, folder := range writable {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			if err := removeTree(filepath.Join(folder, entry.Name())); err != nil {
				return err
			}
		}
	}
	if !isClean() {
		return errDirty
	}
	return nil
}

func removeTree(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	// A directory may lack permissions for its owner: restore the permissions from the top down, and try again.
	_ = filepath.WalkDir(path, func(path string, entry os.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
