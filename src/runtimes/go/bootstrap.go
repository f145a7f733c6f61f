// PID 1 of a Go instance: runs the function's binary in a new process for each invocation.
//
// The bootstrap speaks protocol v3 on stdin and stdout, see src/sandbox/protocol.rs. The build needs only Go 1.19 or
// later.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	version       = 3
	protocolIn    = 0
	protocolOut   = 1
	maxRequest    = 4 << 20
	requestHead   = 16 + 4 + 4 // Nonce, output cap, size of the environment.
	flushBytes    = 32 << 10
	flushAfter    = 20 * time.Millisecond
	pipeCapacity  = 64 << 10
	prSetDumpable = 4
	nonceSize     = 16
)

var (
	writable    = []string{"/tmp", "/dev/shm", "/dev/mqueue"}
	sysvIPC     = []string{"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"}
	oomCounters = []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}
	errDirty    = errors.New("the function left something that cannot be removed")
)

func main() {
	if len(os.Args) != 2 {
		fail(errors.New("usage: bootstrap BINARY"))
	}
	if err := isProgram(os.Args[1]); err != nil {
		fail(err)
	}
	// One thread runs Go code: the limits on processes that the function sets count the bootstrap's threads, too.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
	// Not dumpable: the function must open neither /proc/1/fd nor the bootstrap's memory, though both run as the same
	// user.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); errno != 0 {
		fail(errno)
	}
	// The bootstrap catches all signals: the Go runtime would die of a SIGQUIT or SIGTERM from the function. Unlike
	// ignored signals, caught signals have their default action again in the function.
	signal.Notify(make(chan os.Signal, 1))
	makeThreads()
	inheritance, err := inherited()
	if err != nil {
		fail(err)
	}
	events, err := newEvents()
	if err != nil {
		fail(err)
	}
	supervisor := &supervisor{
		binary:      os.Args[1],
		environment: os.Environ(),
		oom:         openOOMCounter(),
		inheritance: inheritance,
		events:      events,
	}
	if err := supervisor.serve(); err != nil && !errors.Is(err, io.EOF) {
		fail(err)
	}
}

// isProgram fails when the kernel would not execute the file, so that the container's start fails instead of an
// invocation.
func isProgram(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	magic := make([]byte, 4)
	if _, err := io.ReadFull(file, magic); err != nil || string(magic) != "\x7fELF" || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not a program for this system", path)
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bootstrap:", err)
	os.Exit(3)
}

type supervisor struct {
	binary      string
	environment []string
	oom         *os.File
	oomKills    int
	inheritance *inheritance
	events      events
	frames      []byte
	buffer      [pipeCapacity]byte
}

// request is the platform's request for one invocation.
type request struct {
	nonce       []byte
	outputCap   int
	environment []string
	stdin       []byte
}

func (s *supervisor) serve() error {
	s.oomKills = s.countOOMKills()
	if err := s.send(frame('H', []byte{version})); err != nil {
		return err
	}
	for {
		request, err := readRequest()
		if err != nil {
			return err
		}
		clean, err := s.invoke(request)
		if err != nil {
			return err
		}
		if clean {
			continue
		}
		if !s.inheritance.isLeft() {
			return errChanged
		}
		if err := cleanUp(); err != nil {
			return err
		}
		if err := s.send(frame('R', request.nonce)); err != nil {
			return err
		}
	}
}

// invoke runs the function once, and returns whether the function left nothing behind.
func (s *supervisor) invoke(request *request) (bool, error) {
	started := time.Now()
	// The bootstrap opens all descriptors of an invocation before the function runs, because the function may set the
	// bootstrap's limit on descriptors to 0.
	wakeup, wakeupIn, err := pipe()
	if err != nil {
		return false, err
	}
	defer syscall.Close(wakeup)
	child, err := s.start(request)
	if err != nil {
		return false, err
	}
	if err := s.relay(child, request, wakeup, wakeupIn); err != nil {
		return false, err
	}
	duration := time.Since(started)
	// The inheritance is checked first: with a changed limit no folder can be listed.
	clean := s.inheritance.isLeft() && isClean()
	kills := s.countOOMKills()
	oom := byte(255)
	if kills >= 0 {
		oom = flag(kills != s.oomKills)
	}
	s.oomKills = kills
	usage := child.usage
	cpu := (usage.Utime.Sec+usage.Stime.Sec)*1e6 + int64(usage.Utime.Usec) + int64(usage.Stime.Usec)
	exit := make([]byte, 0, 64)
	exit = append(exit, request.nonce...)
	exit = binary.BigEndian.AppendUint32(exit, uint32(child.status))
	exit = append(exit, oom, flag(child.stdout.truncated || child.stderr.truncated), flag(clean))
	exit = binary.BigEndian.AppendUint64(exit, uint64(duration.Microseconds()))
	exit = binary.BigEndian.AppendUint64(exit, uint64(cpu))
	exit = binary.BigEndian.AppendUint64(exit, uint64(usage.Maxrss)*1024)
	s.frames = append(s.frames, frame('X', exit)...)
	return clean, s.flush()
}

// child is the function's process and the bootstrap's ends of its pipes.
type child struct {
	pid            int
	stdout, stderr *output
	exited         chan struct{}
	status         syscall.WaitStatus
	usage          syscall.Rusage
}

func (s *supervisor) start(request *request) (*child, error) {
	stdin, err := stdinWith(request.stdin)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(stdin)
	stdout, stdoutIn, err := pipe()
	if err != nil {
		return nil, err
	}
	defer syscall.Close(stdoutIn)
	stderr, stderrIn, err := pipe()
	if err != nil {
		return nil, err
	}
	defer syscall.Close(stderrIn)
	pid, err := syscall.ForkExec(s.binary, []string{s.binary}, &syscall.ProcAttr{
		Env:   append(s.environment[:len(s.environment):len(s.environment)], request.environment...),
		Files: []uintptr{uintptr(stdin), uintptr(stdoutIn), uintptr(stderrIn)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("failed to execute %s: %w", s.binary, err)
	}
	return &child{
		pid:    pid,
		stdout: &output{fd: stdout, kind: 'O', room: request.outputCap},
		stderr: &output{fd: stderr, kind: 'E', room: request.outputCap},
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

// pump moves the available bytes of a stream into the supervisor's frames.
func (s *supervisor) pump(o *output, nonce []byte) {
	n, err := syscall.Read(o.fd, s.buffer[:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return
	}
	if err != nil || n == 0 {
		o.ended = true
		syscall.Close(o.fd)
		return
	}
	if n > o.room {
		o.truncated = true
		n = o.room
	}
	if n > 0 {
		o.room -= n
		s.frames = append(s.frames, frame(o.kind, nonce, s.buffer[:n])...)
	}
}

// relay passes on the child's output until the child has ended, and then the rest of the output in its pipes.
func (s *supervisor) relay(child *child, request *request, wakeup, wakeupIn int) error {
	child.exited = make(chan struct{})
	go func() {
		// PID 1 inherits all orphans, and must reap them: an orphan counts for the limit on processes until then.
		for {
			var status syscall.WaitStatus
			var usage syscall.Rusage
			pid, err := syscall.Wait4(-1, &status, 0, &usage)
			if pid == child.pid {
				child.status, child.usage = status, usage
			}
			if pid == child.pid || err != nil && err != syscall.EINTR {
				break
			}
		}
		syscall.Close(wakeupIn)
		close(child.exited)
	}()
	for _, fd := range []int{wakeup, child.stdout.fd, child.stderr.fd} {
		if err := s.events.add(fd); err != nil {
			return err
		}
	}
	flushed := time.Now()
	for running := true; running; {
		wait := time.Duration(-1)
		if len(s.frames) > 0 {
			wait = flushAfter
		}
		ready, err := s.events.wait(wait)
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
			case wakeup:
				running = false
			}
		}
		if len(s.frames) >= flushBytes || time.Since(flushed) >= flushAfter {
			if err := s.flush(); err != nil {
				return err
			}
			flushed = time.Now()
		}
	}
	<-child.exited
	endAll()
	// No writer is left, so both streams end with the bytes in their pipes.
	for _, output := range []*output{child.stdout, child.stderr} {
		for !output.ended {
			s.pump(output, request.nonce)
		}
	}
	return nil
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

// stdinWith returns a descriptor from which the function reads data and then the end of the file.
func stdinWith(data []byte) (int, error) {
	if len(data) < pipeCapacity/16 {
		// A pipe holds at least this size, whatever its owner's quota, so this write never blocks.
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

func (s *supervisor) send(data []byte) error {
	s.frames = append(s.frames, data...)
	return s.flush()
}

func (s *supervisor) flush() error {
	err := writeAll(protocolOut, s.frames)
	s.frames = s.frames[:0]
	return err
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := syscall.Write(fd, data)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func readExactly(size int) ([]byte, error) {
	data := make([]byte, size)
	for filled := 0; filled < size; {
		n, err := syscall.Read(protocolIn, data[filled:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.EOF
		}
		filled += n
	}
	return data, nil
}

func readRequest() (*request, error) {
	head, err := readExactly(4)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head)
	if size < 1+requestHead || size > maxRequest {
		return nil, fmt.Errorf("a request of %d bytes", size)
	}
	body, err := readExactly(int(size))
	if err != nil {
		return nil, err
	}
	if body[0] != 'I' {
		return nil, fmt.Errorf("a frame of kind %q", body[0])
	}
	body = body[1:]
	end := requestHead + int(binary.BigEndian.Uint32(body[20:]))
	if end > len(body) {
		return nil, errors.New("a request whose environment is larger than itself")
	}
	request := &request{nonce: body[:nonceSize], outputCap: int(binary.BigEndian.Uint32(body[16:])), stdin: body[end:]}
	for _, pair := range bytes.Split(body[requestHead:end], []byte{0}) {
		if len(pair) > 0 {
			request.environment = append(request.environment, string(pair))
		}
	}
	return request, nil
}

func frame(kind byte, parts ...[]byte) []byte {
	body := []byte{0, 0, 0, 0, kind}
	for _, part := range parts {
		body = append(body, part...)
	}
	binary.BigEndian.PutUint32(body, uint32(len(body)-4))
	return body
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// events is an epoll descriptor. poll(2) would obey the bootstrap's limit on descriptors, which the function may set to
// 0.
type events int

func newEvents() (events, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return 0, err
	}
	return events(fd), events(fd).add(protocolIn)
}

// add watches a descriptor until the descriptor is closed.
func (e events) add(fd int) error {
	return syscall.EpollCtl(int(e), syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
}

// wait returns the descriptors that are ready. A limit below 0 means no limit.
func (e events) wait(limit time.Duration) ([]syscall.EpollEvent, error) {
	ready := make([]syscall.EpollEvent, 4)
	milliseconds := -1
	if limit >= 0 {
		milliseconds = int(limit.Milliseconds())
	}
	for {
		n, err := syscall.EpollWait(int(e), ready, milliseconds)
		if err == nil {
			return ready[:n], nil
		}
		if err != syscall.EINTR {
			return nil, err
		}
	}
}
