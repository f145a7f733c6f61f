// A file that the build adds to package syscall of each function, see Dockerfile. A process that the bootstrap starts
// ahead waits here for its environment, before any other package that could read the environment is initialised.

package syscall

// The variable that the bootstrap alone sets, and the only variable of a process that is started ahead.
const parked = "YOUTUBE_SERVERLESS_PARKED=1"

func init() {
	if len(envs) != 1 || envs[0] != parked {
		return
	}
	var size [4]byte
	fillParked(size[:])
	block := make([]byte, int(size[0])<<24|int(size[1])<<16|int(size[2])<<8|int(size[3]))
	fillParked(block)
	envs = nil
	from := 0
	for i, b := range block {
		if b == 0 {
			envs = append(envs, string(block[from:i]))
			from = i + 1
		}
	}
}

// fillParked reads from stdin. What follows on stdin is the program's own.
func fillParked(p []byte) {
	for len(p) > 0 {
		n, err := read(0, p)
		if err == EINTR {
			continue
		}
		if err != nil || n <= 0 {
			Exit(1)
		}
		p = p[n:]
	}
}
