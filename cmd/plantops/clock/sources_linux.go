package clock

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Elapsed returns the time since this machine started, sleep included.
func Elapsed() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// Synchronised returns a function that reports whether the kernel says that its clock follows a time server
// (adjtimex(2), STA_UNSYNC). A wall clock that is not the kernel's is never synchronised.
func Synchronised(wall func() time.Time) func() bool {
	return func() bool {
		if off := time.Until(wall()); off.Abs() > time.Second {
			return false
		}
		var t unix.Timex
		_, err := unix.Adjtimex(&t)
		return err == nil && t.Status&unix.STA_UNSYNC == 0
	}
}

// Boot names this start of the machine; "" where the kernel does not tell.
func Boot() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(id)), err
}
