package main

import (
	"errors"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"
)

const (
	rlimits          = 16
	ioprioClassShift = 13
	threadsAhead     = 2
)

// knobs are the files of /proc/self that another process of the same user can change. Only the files that the bootstrap
// itself can write are watched.
var knobs = []string{"autogroup", "coredump_filter", "oom_score_adj", "timerslack_ns"}

var errChanged = errors.New("the function changed what later ones would inherit")

// inheritance holds the attributes that a child inherits from the bootstrap and that a process of the same user can
// change.
type inheritance struct {
	threads int
	knobs   []int
	process processWide
	thread  threadWide
	names   []string
	buffer  [4096]byte
}

type processWide struct {
	limits [rlimits]syscall.Rlimit
	knobs  [4][32]byte
}

type threadWide struct {
	attributes     [256]byte
	affinity       [1024]byte
	nice, priority uintptr
}

// inherited records the attributes at the start, and opens all descriptors for later checks, because the function may
// set the bootstrap's limit on descriptors to 0.
func inherited() (*inheritance, error) {
	threads, err := syscall.Open("/proc/self/task", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	i := &inheritance{threads: threads}
	for _, name := range knobs {
		const writable = 2
		if path := "/proc/self/" + name; syscall.Access(path, writable) == nil {
			knob, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			i.knobs = append(i.knobs, knob)
		}
	}
	i.process, i.thread = i.ofProcess(), ofThread(0)
	return i, nil
}

// isLeft returns whether the process and all of its threads still have the attributes of the start: any thread may
// start the next child.
func (i *inheritance) isLeft() bool {
	if i.process != i.ofProcess() {
		return false
	}
	if _, err := syscall.Seek(i.threads, 0, 0); err != nil {
		return false
	}
	for {
		n, err := syscall.ReadDirent(i.threads, i.buffer[:])
		if err != nil || n <= 0 {
			return err == nil
		}
		_, _, i.names = syscall.ParseDirent(i.buffer[:n], -1, i.names[:0])
		for _, name := range i.names {
			thread, err := strconv.Atoi(name)
			if err != nil || i.thread != ofThread(thread) {
				return false
			}
		}
	}
}

func (i *inheritance) ofProcess() (process processWide) {
	for limit := range process.limits {
		_ = syscall.Getrlimit(limit, &process.limits[limit])
	}
	for n, knob := range i.knobs {
		_, _ = syscall.Pread(knob, process.knobs[n][:], 0)
	}
	return process
}

func ofThread(id int) (thread threadWide) {
	const ofProcess, ofOne = 0, 1
	who := uintptr(id)
	syscall.RawSyscall6(sysSchedGetattr, who,
		uintptr(unsafe.Pointer(&thread.attributes)), unsafe.Sizeof(thread.attributes), 0, 0, 0)
	syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, who,
		unsafe.Sizeof(thread.affinity), uintptr(unsafe.Pointer(&thread.affinity)))
	thread.nice, _, _ = syscall.RawSyscall(syscall.SYS_GETPRIORITY, ofProcess, who, 0)
	thread.priority, _, _ = syscall.RawSyscall(syscall.SYS_IOPRIO_GET, ofOne, who, 0)
	if thread.priority>>ioprioClassShift == 0 {
		// A priority without a class is the kernel's default, for which the kernel returns several numbers.
		thread.priority = 0
	}
	return thread
}

// makeThreads makes the threads of an invocation ahead, because the function may set the bootstrap's limit on processes
// to 0.
func makeThreads() {
	var made, ended sync.WaitGroup
	made.Add(threadsAhead)
	ended.Add(threadsAhead)
	release := make(chan struct{})
	for n := 0; n < threadsAhead; n++ {
		go func() {
			runtime.LockOSThread()
			made.Done()
			<-release
			runtime.UnlockOSThread()
			ended.Done()
		}()
	}
	made.Wait()
	close(release)
	ended.Wait()
}
