// What a function can leave in the container, and its removal.

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// leftovers knows where a function can leave something. The descriptors stay open, as an invocation pays for each open.
type leftovers struct {
	folders, tables []int
	buffer          [4096]byte
}

func newLeftovers() *leftovers {
	open := func(paths []string, flags int) (found []int) {
		for _, path := range paths {
			if fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|flags, 0); err == nil {
				found = append(found, fd)
			}
		}
		return found
	}
	return &leftovers{folders: open(writable, syscall.O_DIRECTORY), tables: open(sysvIPC, 0)}
}

// none returns whether the container holds no file and no IPC object of a function.
func (l *leftovers) none() bool {
	for _, folder := range l.folders {
		if _, err := syscall.Seek(folder, 0, io.SeekStart); err != nil {
			return false
		}
		// A folder's own two entries fit, and with them the first of a function.
		n, err := syscall.ReadDirent(folder, l.buffer[:])
		if err != nil {
			return false
		}
		if _, count, _ := syscall.ParseDirent(l.buffer[:n], 1, nil); count > 0 {
			return false
		}
	}
	for _, table := range l.tables {
		// The first line is the table's header.
		n, err := syscall.Pread(table, l.buffer[:], 0)
		if err != nil || bytes.Count(l.buffer[:n], []byte("\n")) > 1 {
			return false
		}
	}
	return true
}

// cleanUp removes the files that a function left, and fails when anything is left. IPC objects are not removed: their
// removal would cost more than the start of a new container.
func (l *leftovers) cleanUp() error {
	for _, folder := range writable {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			if err := removeTree(filepath.Join(folder, entry.Name())); err != nil {
				return err
			}
		}
	}
	if !l.none() {
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
