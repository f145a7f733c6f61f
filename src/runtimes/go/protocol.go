// Frames to and from the platform, protocol v3, see src/sandbox/protocol.rs.

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// request is the platform's request for one invocation.
type request struct {
	nonce       []byte
	outputCap   int
	environment []string
	stdin       []byte
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
