package main

import (
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// How often serve collects garbage, measured (amd64, 2 cores, QoS 1, TLS, as many readings as go through; the server's
// CPU µs per reading, and its largest resident memory):
//
//	GOGC       10 devices          1000 devices
//	  50   18.0 µs   34 MiB    28.0 µs   107 MiB
//	 100   13.0 µs   35 MiB    21.5 µs   136 MiB
//	 200   11.0 µs   43 MiB    18.9 µs   163 MiB
//	 400    9.7 µs   50 MiB    14.8 µs   239 MiB
//
// A box without load has 18 MiB with each of them. What lives is small beside what each batch leaves behind, so a heap of
// five times its live part is cheap, until connections make the live part large: then the limit takes over. With
// GOMEMLIMIT=100MiB (a Pi with 512 MiB has a little more) the last line is 11.3 µs, 55 MiB; 24.6 µs, 119 MiB.
const (
	gcPercent = 400
	// memoryShare of the machine's memory is where the collector begins to save memory instead of time; it is no limit
	// on what the program gets. A Pi Zero has 512 MiB.
	memoryShare = 4
)

// tuneMemory sets the garbage collector for a server, except where the environment does (GOGC, GOMEMLIMIT).
func tuneMemory(environ []string) {
	if !isSet(environ, "GOGC") {
		debug.SetGCPercent(gcPercent)
	}
	var machine unix.Sysinfo_t
	if !isSet(environ, "GOMEMLIMIT") && unix.Sysinfo(&machine) == nil {
		debug.SetMemoryLimit(int64(uint64(machine.Totalram) * uint64(machine.Unit) / memoryShare)) // their types differ between systems
	}
}

// isSet reports whether a variable has a value.
func isSet(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(variable string) bool {
		value, ok := strings.CutPrefix(variable, name+"=")
		return ok && value != ""
	})
}
