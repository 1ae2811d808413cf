package scene

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Command is a broker that a command line starts, and that can be killed as often as one likes.
type Command struct {
	Line    string // for the shell
	Address string // where it will listen
	cmd     *exec.Cmd
}

// Start starts the broker and returns when it listens.
func (b *Command) Start() error {
	b.cmd = exec.Command("sh", "-c", "exec "+b.Line)
	b.cmd.Stdout, b.cmd.Stderr = os.Stderr, os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start %q: %w", b.Line, err)
	}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(tick) {
		if conn, err := net.Dial("tcp", b.Address); err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("%q does not listen on %s", b.Line, b.Address)
}

// Kill ends it with SIGKILL and waits until it has ended.
func (b *Command) Kill() error {
	if err := b.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %q: %w", b.Line, err)
	}
	_ = b.cmd.Wait() // it says that it was killed
	return nil
}
