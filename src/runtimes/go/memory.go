// The kernel's count of processes that ran out of memory.

package main

import (
	"bytes"
	"os"
	"strconv"
)

func openOOMCounter() *os.File {
	for _, path := range oomCounters {
		if file, err := os.Open(path); err == nil {
			return file
		}
	}
	return nil
}

// countOOMKills returns how many processes of this container the kernel's OOM killer has ended, -1 when unknown.
func (s *supervisor) countOOMKills() int {
	if s.oom == nil {
		return -1
	}
	var buffer [4096]byte
	n, _ := s.oom.ReadAt(buffer[:], 0)
	for _, line := range bytes.Split(buffer[:n], []byte("\n")) {
		if fields := bytes.Fields(line); len(fields) == 2 && string(fields[0]) == "oom_kill" {
			if kills, err := strconv.Atoi(string(fields[1])); err == nil {
				return kills
			}
		}
	}
	return -1
}
