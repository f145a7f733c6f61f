// Runs a build's command, and ends the command when the command would make no progress for minutes: at the memory limit
// the kernel may take the compiler's own pages away and read them again, over and over, instead of killing the
// compiler.
//
// Usage: within-memory COMMAND [ARGUMENT...]. The exit status is the command's, or 137 when the command was killed.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// Pages that are read again may add up to this many times the limit. A build that fits reads almost no page again.
	mostRefaults = 4
	period       = 250 * time.Millisecond
	killed       = 137
)

// The files of cgroup v2 and v1.
var (
	limits     = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}
	statistics = []string{"/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"}
)

func main() {
	command := exec.Command(os.Args[1], os.Args[2:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go watch(command.Process.Pid)
	err := command.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Exited():
		os.Exit(exit.ExitCode())
	default:
		os.Exit(killed)
	}
}

// watch kills the command's process group once the limit is reached for good.
func watch(group int) {
	limit := first(limits, func(text string) (int64, error) { return strconv.ParseInt(strings.TrimSpace(text), 10, 64) })
	// The absence of a limit is a word in v2, and a number in v1 that no build reaches.
	if limit <= 0 {
		return
	}
	page := int64(os.Getpagesize())
	for range time.Tick(period) {
		// The absence of a limit is the largest number in v1: a multiplication of the limit would overflow.
		if first(statistics, refaults)*page/mostRefaults > limit {
			fmt.Fprintln(os.Stderr, "signal: killed: the build does not fit into its memory")
			_ = syscall.Kill(-group, syscall.SIGKILL)
			os.Exit(killed)
		}
	}
}

// refaults returns how many file pages were read again after the kernel had taken them away.
func refaults(text string) (int64, error) {
	for _, line := range strings.Split(text, "\n") {
		if count := strings.TrimPrefix(line, "workingset_refault_file "); count != line {
			return strconv.ParseInt(count, 10, 64)
		}
	}
	return 0, errors.New("an older kernel")
}

// first returns the value in the first file that can be read and parsed, 0 when there is no such file.
func first(paths []string, parse func(string) (int64, error)) int64 {
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil {
			if value, err := parse(string(data)); err == nil {
				return value
			}
		}
	}
	return 0
}
