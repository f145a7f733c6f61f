// The function's process: how the supervisor starts a child, relays what the child prints, and ends all processes.

package main

import (
	"fmt"
	"io"
	"syscall"
	"time"
	"unsafe"
)

// child is the function's process and the bootstrap's ends of its pipes.
type child struct {
	pid            int
	end            int // Wakes the supervisor when the process ends. Below 0 where the kernel has no such descriptors.
	stdout, stderr *output
	hasEnded       bool
	isHeld         bool // A stream does not end, though no process is left.
	status         syscall.WaitStatus
	usage          syscall.Rusage
}

// start runs the function on a child that was started ahead, or else on a new child.
func (s *supervisor) start(request *request) (*child, error) {
	environment := withoutParked(merged(request.environment, s.environment))
	child := s.wake(environment, request.stdin)
	if child == nil {
		stdin, err := stdinWith(request.stdin)
		if err != nil {
			return nil, err
		}
		defer syscall.Close(stdin)
		if child, err = s.execute(stdin, environment); err != nil {
			return nil, err
		}
	}
	child.stdout.room, child.stderr.room = request.stdoutCap, request.stderrCap
	return child, nil
}

// execute starts the function's program. All descriptors of an invocation are opened before the function runs, because
// the function may set the bootstrap's limit on descriptors to 0.
func (s *supervisor) execute(stdin int, environment []string) (*child, error) {
	stdout, stdoutIn, err := pipe()
	if err != nil {
		return nil, err
	}
	defer syscall.Close(stdoutIn)
	stderr, stderrIn, err := pipe()
	if err != nil {
		syscall.Close(stdout)
		return nil, err
	}
	defer syscall.Close(stderrIn)
	_, _ = syscall.SetNonblock(stdout, true), syscall.SetNonblock(stderr, true)
	pid, err := syscall.ForkExec(s.binary, []string{s.binary}, &syscall.ProcAttr{
		Env:   environment,
		Files: []uintptr{uintptr(stdin), uintptr(stdoutIn), uintptr(stderrIn)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		syscall.Close(stdout)
		syscall.Close(stderr)
		return nil, fmt.Errorf("failed to execute %s: %w", s.binary, err)
	}
	end, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		end = ^uintptr(0)
	}
	return &child{
		pid:    pid,
		end:    int(end),
		stdout: &output{fd: stdout, kind: 'O'},
		stderr: &output{fd: stderr, kind: 'E'},
	}, nil
}

// output is one stream of the function. The bytes within the cap go out in frames, the other bytes are discarded.
type output struct {
	fd        int
	kind      byte
	room      int
	truncated bool
	ended     bool
}

// pump moves the available bytes of a stream into the supervisor's frames. Returns false when there are none.
func (s *supervisor) pump(o *output, nonce []byte) bool {
	n, err := syscall.Read(o.fd, s.buffer[:])
	if err == syscall.EINTR {
		return true
	}
	if err == syscall.EAGAIN {
		return false
	}
	if err != nil || n == 0 {
		o.ended = true
		syscall.Close(o.fd)
		return true
	}
	if n > o.room {
		o.truncated = true
		n = o.room
	}
	if n > 0 {
		o.room -= n
		s.frames = append(s.frames, frame(o.kind, nonce, s.buffer[:n])...)
	}
	return true
}

// relay passes on the child's output until the child has ended, and then the rest of the output in its pipes.
//
// One thread does all: a change of threads would have to wait for a processor when the machine is busy.
func (s *supervisor) relay(child *child, request *request) error {
	defer syscall.Close(child.end)
	for _, fd := range []int{child.stdout.fd, child.stderr.fd, child.end} {
		if fd < 0 {
			continue
		}
		if err := s.events.add(fd); err != nil {
			return err
		}
	}
	flushed := time.Now()
	for !child.reap() {
		ready, err := s.events.wait(tick)
		if err != nil {
			return err
		}
		for _, event := range ready {
			switch int(event.Fd) {
			case protocolIn:
				// The platform sends nothing during an invocation, so the platform has gone away or breaks the
				// protocol.
				return io.EOF
			case child.stdout.fd:
				s.pump(child.stdout, request.nonce)
			case child.stderr.fd:
				s.pump(child.stderr, request.nonce)
			}
		}
		if len(s.frames) >= flushBytes || len(s.frames) > 0 && time.Since(flushed) >= flushAfter {
			if err := s.flush(); err != nil {
				return err
			}
			flushed = time.Now()
		}
	}
	endAll()
	// No process is left to write, so both streams end with the bytes in their pipes. A stream that does not end has a
	// writer among descriptors that the function has left on their way.
	for _, output := range []*output{child.stdout, child.stderr} {
		isHeld := false
		for !output.ended && !isHeld {
			isHeld = !s.pump(output, request.nonce)
		}
		child.isHeld = child.isHeld || isHeld
	}
	return nil
}

// reap reaps every process that has ended, and returns whether the child has. PID 1 inherits all orphans, and an orphan
// counts for the limit on processes until it is reaped.
func (c *child) reap() bool {
	for {
		var status syscall.WaitStatus
		var usage syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &usage)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			return c.hasEnded
		}
		if pid == c.pid {
			c.status, c.usage, c.hasEnded = status, usage, true
		}
	}
}

// endAll kills and reaps all processes that the function left running. No process can escape by forks: PID 1 kills all
// processes at once.
func endAll() {
	for syscall.Kill(-1, syscall.SIGKILL) == nil {
		for {
			_, err := syscall.Wait4(-1, nil, 0, nil)
			if err != nil && err != syscall.EINTR {
				break
			}
		}
	}
}

// stdinWith returns a descriptor from which the function reads data and then the end of the file.
func stdinWith(data []byte) (int, error) {
	if len(data) < pipeLeast {
		reader, writer, err := pipe()
		if err != nil {
			return 0, err
		}
		defer syscall.Close(writer)
		return reader, writeAll(writer, data)
	}
	name := []byte("stdin\x00")
	fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(&name[0])), 1, 0)
	if errno != 0 {
		return 0, errno
	}
	if err := writeAll(int(fd), data); err != nil {
		return 0, err
	}
	_, err := syscall.Seek(int(fd), 0, io.SeekStart)
	return int(fd), err
}

// pipe returns a close-on-exec pipe.
func pipe() (int, int, error) {
	var fds [2]int
	err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC)
	return fds[0], fds[1], err
}
