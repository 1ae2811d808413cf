//go:build linux

package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// buildProgram builds the program as it is released, once for each process of tests. The file has no name any more when it is
// returned, only a descriptor of this process: nothing is left behind however the tests end.
var buildProgram = sync.OnceValues(func() (*os.File, error) {
	dir, err := os.MkdirTemp("", "plantops-harness-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "plantops")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/plantops/plantops/cmd/plantops")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build plantops: %w\n%s", err, out)
	}
	return os.Open(path)
})
