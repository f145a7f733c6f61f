// Frames to and from the platform on a socket or on stdin and stdout, protocol v7, see src/sandbox/protocol.rs.

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"syscall"
)

// request is the platform's request for one invocation.
type request struct {
	nonce       []byte
	stdoutCap   int
	stderrCap   int
	environment []string
	stdin       []byte
}

// connect puts the socket that the platform listens on, where there is one, in the place of stdin and stdout.
func connect() error {
	if _, err := os.Stat(socketPath); err != nil {
		return nil
	}
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := syscall.Connect(socket, &syscall.SockaddrUnix{Name: socketPath}); err != nil {
		return fmt.Errorf("the platform does not listen on %s: %w", socketPath, err)
	}
	for _, fd := range []int{protocolIn, protocolOut} {
		if err := syscall.Dup3(socket, fd, 0); err != nil {
			return err
		}
	}
	return syscall.Close(socket)
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

// readBody reads the next frame's body with its kind.
func readBody() ([]byte, error) {
	size, err := readExactly(4)
	if err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(size))
	if length < 1 || length > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", length)
	}
	return readExactly(length)
}

// readFrame reads the body of the next frame, which must be of this kind and have as many bytes as its head.
func readFrame(kind byte, headSize int) ([]byte, error) {
	body, err := readBody()
	if err != nil {
		return nil, err
	}
	return bodyOf(body, kind, headSize)
}

// bodyOf returns a body without its kind.
func bodyOf(body []byte, kind byte, headSize int) ([]byte, error) {
	if body[0] != kind {
		return nil, fmt.Errorf("a frame of kind %q", body[0])
	}
	if len(body) < 1+headSize {
		return nil, fmt.Errorf("a frame of %d bytes", len(body))
	}
	return body[1:], nil
}

// readSetup reads the function's own environment. Before the setup the platform may ask for doors. A program in Go has
// nothing to preload.
func readSetup() ([]string, error) {
	body, err := readBody()
	if err == nil && body[0] == 'D' {
		if err := openDoors(body[1:]); err != nil {
			return nil, err
		}
		body, err = readBody()
	}
	if err == nil {
		body, err = bodyOf(body, 'S', 4)
	}
	if err != nil {
		return nil, err
	}
	end := 4 + int(binary.BigEndian.Uint32(body))
	if end > len(body) {
		return nil, errors.New("a setup whose environment is larger than itself")
	}
	return variables(body[4:end]), nil
}

func readRequest() (*request, error) {
	body, err := readFrame('I', requestHead)
	if err != nil {
		return nil, err
	}
	end := requestHead + int(binary.BigEndian.Uint32(body[24:]))
	if end > len(body) {
		return nil, errors.New("a request whose environment is larger than itself")
	}
	return &request{
		nonce:       body[:nonceSize],
		stdoutCap:   capOf(body[16:]),
		stderrCap:   capOf(body[20:]),
		environment: variables(body[requestHead:end]),
		stdin:       body[end:],
	}, nil
}

// capOf returns how many bytes of a stream go to the platform.
func capOf(field []byte) int {
	most := binary.BigEndian.Uint32(field)
	if most == noCap {
		return math.MaxInt
	}
	return int(most)
}

// variables returns the variables of an environment, each as NAME=VALUE.
func variables(block []byte) []string {
	var found []string
	for _, pair := range bytes.Split(block, []byte{0}) {
		if len(pair) > 0 {
			found = append(found, string(pair))
		}
	}
	return found
}

// merged returns the variables of both environments. A variable of the first replaces a variable of the second.
func merged(first, second []string) []string {
	all := first[:len(first):len(first)]
	for _, pair := range second {
		name, _, _ := strings.Cut(pair, "=")
		if !hasPrefix(first, name+"=") {
			all = append(all, pair)
		}
	}
	return all
}

func hasPrefix(pairs []string, prefix string) bool {
	for _, pair := range pairs {
		if strings.HasPrefix(pair, prefix) {
			return true
		}
	}
	return false
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
