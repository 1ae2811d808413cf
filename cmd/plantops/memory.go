package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

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

const (
	// giveBackEvery is how often serve looks whether memory can be given back, spareBytes from how much on.
	giveBackEvery = time.Minute
	spareBytes    = 16 << 20
)

// giveBackMemory is a part that gives memory back to the system when it is quiet after a storm: the collector keeps five times
// of what lives, and comes by itself when that is full. After 5,000 logins by TLS these are 100 MiB.
func giveBackMemory(ctx context.Context) error {
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	for before := readHeap(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := readHeap()
		if isSpare(before, now) {
			debug.FreeOSMemory()
		}
		before = now
	}
}

// heapState is what the runtime says of the heap: what was allocated since the start, what lived at the last collection, and
// what is in memory.
type heapState struct{ allocated, live, resident uint64 }

// isSpare reports whether the heap is much larger than what lives in it, and hardly used.
func isSpare(before, now heapState) bool {
	return now.allocated-before.allocated < max(now.live, spareBytes) && now.resident > now.live+max(now.live/2, spareBytes)
}

func readHeap() heapState {
	all := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(all)
	of := func(i int) uint64 { return all[i].Value.Uint64() }
	return heapState{of(0), of(1), of(2) + of(3) + of(4)}
}

// isSet reports whether a variable has a value.
func isSet(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(variable string) bool {
		value, ok := strings.CutPrefix(variable, name+"=")
		return ok && value != ""
	})
}
