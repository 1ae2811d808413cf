package store

import (
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestMain makes the random tests short where nobody asked for a number (-rapid.checks=1000): each opens real files.
func TestMain(m *testing.M) {
	if path := os.Getenv(victimPath); path != "" {
		beVictim(path)
		return
	}
	asked := slices.ContainsFunc(os.Args, func(arg string) bool { return strings.Contains(arg, "rapid.checks") })
	if !asked {
		_ = flag.Set("rapid.checks", "12") // rapid defines it
	}
	os.Exit(m.Run())
}

// readOutside reads a file in another process: to open and close a database in this one would drop SQLite's locks on it.
func readOutside(path string) ([]byte, error) {
	return exec.Command("cat", path).Output()
}
