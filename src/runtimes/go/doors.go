// Doors: listening sockets on loopback addresses, which the platform gets and serves.

package main

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

const (
	backlog = 4096
	// The bytes of a door's address: the host and the port.
	addressBytes = 6
)

// openDoors listens on these addresses, and passes the listening sockets to the platform in one message. No socket
// stays in this process.
func openDoors(addresses []byte) error {
	var listeners []int
	defer func() {
		for _, listener := range listeners {
			syscall.Close(listener)
		}
	}()
	for ; len(addresses) >= addressBytes; addresses = addresses[addressBytes:] {
		address := &syscall.SockaddrInet4{Port: int(binary.BigEndian.Uint16(addresses[4:]))}
		copy(address.Addr[:], addresses)
		listener, err := listen(address)
		if err != nil {
			host := address.Addr
			return fmt.Errorf("the door %d.%d.%d.%d:%d can't be opened: %w",
				host[0], host[1], host[2], host[3], address.Port, err)
		}
		listeners = append(listeners, listener)
	}
	err := syscall.Sendmsg(protocolOut, frame('L'), syscall.UnixRights(listeners...), nil, 0)
	if err != nil {
		return fmt.Errorf("the doors can't be passed to the platform: %w", err)
	}
	return nil
}

func listen(address *syscall.SockaddrInet4) (int, error) {
	listener, err := syscall.Socket(syscall.AF_INET,
		syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	if err = syscall.Bind(listener, address); err == nil {
		err = syscall.Listen(listener, backlog)
	}
	if err != nil {
		syscall.Close(listener)
	}
	return listener, err
}
