package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// afterLimit is how long the user's command may run.
	afterLimit = time.Hour
	// afterGrace is how long what it has started may keep its output open.
	afterGrace = 5 * time.Second
	// maxAfterOutput is how much of what it says last is told.
	maxAfterOutput = 1000
)

// AfterVariable has the path of the backup, for the user's command.
const AfterVariable = "PLANTOPS_BACKUP"

// tail keeps the end of what is written.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-maxAfterOutput):]
	return len(p), nil
}

// runAfter runs a command of the user, by a shell, and ends it with all that it started when it takes longer than limit or
// ctx ends. Our own variables, of which one may be a password, are not shown to it.
func runAfter(ctx context.Context, command, file string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PLANTOPS_") || strings.HasPrefix(v, "MQTT_")
	})
	cmd.Env = append(cmd.Env, AfterVariable+"="+file)
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = afterGrace
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it was ended after %s", limit)
	}
	if err != nil {
		return fmt.Errorf("%w: %q", err, strings.TrimSpace(string(out.text)))
	}
	return nil
}
