//go:build !linux

package network

import "time"

// pollerBuilt says that there is a poller on this system.
const pollerBuilt = false

// poller is none: connections keep their goroutines.
type poller struct{}

func (poller) begin(*parking)                 {}
func (poller) works() bool                    { return false }
func (poller) watch(*Conn, int32, int32) bool { return false }
func (poller) wakeAt(time.Time)               {}
func (poller) end()                           {}
