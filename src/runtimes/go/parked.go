// A process of the function that is started ahead of its request. The process waits in park.go, which is part of the
// function's program.

package main

import (
	"encoding/binary"
	"strings"
	"syscall"
)

const (
	parkedName = "YOUTUBE_SERVERLESS_PARKED"
	// A pipe holds at least this size, whatever its owner's quota, so a write of this size never blocks.
	pipeLeast = pipeCapacity / 16
)

// runtimeVariables are those that Go's runtime reads before the program waits.
var runtimeVariables = []string{"GODEBUG=", "GOGC=", "GOMAXPROCS=", "GOMEMLIMIT=", "GOTRACEBACK="}

// parked is a child that waits for its environment, and the bootstrap's end of the pipe to the child's stdin.
type parked struct {
	*child
	stdin     int
	isStopped bool
}

// park starts a child ahead. Without such a child, an invocation starts its own.
func (s *supervisor) park() {
	stdin, stdinIn, err := pipe()
	if err != nil {
		return
	}
	defer syscall.Close(stdin)
	child, err := s.execute(stdin, []string{parkedName + "=1"})
	if err != nil {
		syscall.Close(stdinIn)
		return
	}
	s.parked = &parked{child: child, stdin: stdinIn}
}

// stop stops a child that was started ahead. Almost every program waits in park.go, but a program without package
// syscall, or a package that is initialised before package syscall, runs. No code of a function may go on between
// invocations.
func (p *parked) stop() {
	if p != nil && syscall.Kill(p.pid, syscall.SIGSTOP) == nil {
		p.isStopped = true
	}
}

// wake gives the child that was started ahead its environment and stdin. Returns nil when the request needs a process
// of its own: then no other process is left.
func (s *supervisor) wake(environment []string, stdin []byte) *child {
	parked := s.parked
	if parked == nil {
		return nil
	}
	s.parked = nil
	defer syscall.Close(parked.stdin)
	if parked.isStopped {
		_ = syscall.Kill(parked.pid, syscall.SIGCONT)
	}
	if len(stdin) < pipeLeast && !hasAny(environment, runtimeVariables) {
		message := binary.BigEndian.AppendUint32(nil, 0)
		for _, pair := range environment {
			message = append(append(message, pair...), 0)
		}
		binary.BigEndian.PutUint32(message, uint32(len(message)-4))
		// The child reads the environment at once, and the pipe holds the rest.
		if writeAll(parked.stdin, append(message, stdin...)) == nil {
			return parked.child
		}
	}
	// The function must not meet the process of another invocation.
	endAll()
	for _, fd := range []int{parked.stdout.fd, parked.stderr.fd, parked.end} {
		syscall.Close(fd)
	}
	return nil
}

func hasAny(pairs, prefixes []string) bool {
	for _, prefix := range prefixes {
		if hasPrefix(pairs, prefix) {
			return true
		}
	}
	return false
}

// withoutParked returns the variables without the one that would make the program wait.
func withoutParked(environment []string) []string {
	kept := environment[:0]
	for _, pair := range environment {
		if !strings.HasPrefix(pair, parkedName+"=") {
			kept = append(kept, pair)
		}
	}
	return kept
}
