package swap

import (
	"os"
	"syscall"
)

// SyncData has what was written to a file on disk, and of its inode only what is needed to find that again.
func SyncData(file *os.File) error {
	for {
		err := syscall.Fdatasync(int(file.Fd()))
		if err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
