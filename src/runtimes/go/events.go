// What the supervisor waits for during an invocation.

package main

import (
	"syscall"
	"time"
)

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

// hasRequest returns whether the platform has sent something within the limit.
func (e events) hasRequest(limit time.Duration) bool {
	ready, err := e.wait(limit)
	return err != nil || len(ready) > 0
}

// wait returns the descriptors that are ready within the limit.
func (e events) wait(limit time.Duration) ([]syscall.EpollEvent, error) {
	ready := make([]syscall.EpollEvent, 4)
	milliseconds := int(limit.Milliseconds())
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
