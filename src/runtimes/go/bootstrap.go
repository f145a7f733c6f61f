// PID 1 of a Go instance: runs the function's binary in a new process for each invocation.
//
// The bootstrap speaks protocol v7 on a socket or on stdin and stdout, see src/sandbox/protocol.rs. The build needs
// only Go 1.19 or later.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	version       = 7
	protocolIn    = 0
	protocolOut   = 1
	maxFrame      = 128 << 20
	requestHead   = 16 + 4 + 4 + 4 // Nonce, caps of stdout and stderr, size of the environment.
	noCap         = 1<<32 - 1      // The cap of a stream without a limit.
	flushBytes    = 32 << 10
	flushAfter    = 20 * time.Millisecond
	tick          = 5 * time.Millisecond
	parkedFor     = 20 * time.Millisecond
	pipeCapacity  = 64 << 10
	prSetDumpable = 4
	nonceSize     = 16
	socketPath    = "/run/youtube-serverless/socket"
	// The place of the function's program in a slot, which starts without the program.
	slotBinary = "/function"
	slotFolder = "/opt/youtube-serverless/code"
	stNoExec   = 8
)

var (
	writable    = []string{"/tmp", "/dev/shm", "/dev/mqueue"}
	sysvIPC     = []string{"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"}
	oomCounters = []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}
	errDirty    = errors.New("the function left something that cannot be removed")
)

func main() {
	if len(os.Args) > 2 {
		fail(errors.New("usage: bootstrap [BINARY]"))
	}
	if err := connect(); err != nil {
		fail(err)
	}
	binary, isSlot := slotBinary, len(os.Args) == 1
	var err error
	if isSlot {
		err = executes(slotFolder)
	} else {
		binary = os.Args[1]
		err = isProgram(binary)
	}
	if err != nil {
		fail(err)
	}
	// One thread runs Go code: the limits on processes that the function sets count the bootstrap's threads, too.
	runtime.GOMAXPROCS(1)
	// The peak memory of a child begins with that of the process that has started the child.
	debug.SetGCPercent(25)
	// Not dumpable: the function must open neither /proc/1/fd nor the bootstrap's memory, though both run as the same
	// user.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); errno != 0 {
		fail(errno)
	}
	// The bootstrap catches all signals: the Go runtime would die of a SIGQUIT or SIGTERM from the function. Unlike
	// ignored signals, caught signals have their default action again in the function.
	signal.Notify(make(chan os.Signal, 1))
	// The end of a child must wake no other thread.
	signal.Reset(syscall.SIGCHLD)
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
		binary:      binary,
		isSlot:      isSlot,
		environment: os.Environ(),
		oom:         openOOMCounter(),
		inheritance: inheritance,
		leftovers:   newLeftovers(),
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

// executes fails where the kernel executes no program of a folder, so that no slot is offered in which a program would
// not start.
func executes(folder string) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(folder, &disk); err != nil {
		return err
	}
	if disk.Flags&stNoExec != 0 {
		return fmt.Errorf("%s is on a file system that is mounted with noexec", folder)
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bootstrap:", err)
	os.Exit(3)
}

type supervisor struct {
	binary      string
	isSlot      bool // The program comes after the hello.
	environment []string
	oom         *os.File
	oomKills    int
	inheritance *inheritance
	leftovers   *leftovers
	events      events
	parked      *parked
	frames      []byte
	buffer      [pipeCapacity]byte
}

func (s *supervisor) serve() error {
	s.oomKills = s.countOOMKills()
	if err := s.send(frame('H', []byte{version})); err != nil {
		return err
	}
	if s.isSlot {
		if _, err := readFrame('C', 0); err != nil {
			return err
		}
		if err := isProgram(s.binary); err != nil {
			return err
		}
	}
	setup, err := readSetup()
	if err != nil {
		return err
	}
	s.environment = merged(setup, s.environment)
	// Nothing is preloaded: memory did not run out, and no module follows.
	if err := s.send(frame('P', []byte{0})); err != nil {
		return err
	}
	for {
		s.park()
		if !s.events.hasRequest(parkedFor) {
			s.parked.stop()
		}
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
		if err := s.leftovers.cleanUp(); err != nil {
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
	child, err := s.start(request)
	if err != nil {
		return false, err
	}
	if err := s.relay(child, request); err != nil {
		return false, err
	}
	duration := time.Since(started)
	// The inheritance is checked first: with a changed limit no folder can be listed.
	clean := !child.isHeld && s.inheritance.isLeft() && s.leftovers.none()
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
	if err := s.flush(); err != nil || !child.isHeld {
		return clean, err
	}
	return false, errDirty
}
