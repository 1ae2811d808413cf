//go:build linux

package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestTheWayIntoTheStoreIsCutUnderLoad cuts the subscriber's connection to the broker over and over while devices send:
// what is acknowledged, and with QoS 0 all that is sent, must be stored, once, and the equation must hold. PLANTOPS_CUT
// makes it longer.
func TestTheWayIntoTheStoreIsCutUnderLoad(t *testing.T) {
	length := durationSetting(t, "PLANTOPS_CUT", 2*time.Second)
	every := min(length/20, time.Second)
	const perSecond = 2000
	for _, qos := range []byte{0, 1} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			t.Parallel()
			in, s := newInstallation(t, t.TempDir()), load{qos: qos, devices: 10, window: 100, rate: perSecond}
			s.readings = int(length.Seconds() * perSecond)
			ids := make([]string, s.devices)
			for i := range ids {
				ids[i] = deviceID(i)
			}
			s.secrets, s.address = in.register(ids...), in.tcp
			in.start()
			in.awaitReady()
			devices, err := s.connect()
			require.NoError(t, err)
			stop := keepCutting(in, every)
			seen, err := s.run(devices)
			require.NoError(t, err)
			t.Logf("%d acknowledged, %d cuts", seen.acknowledged, stop())
			if qos > 0 {
				assert.Equal(t, s.readings, seen.acknowledged)
			}
			sent := int64(s.readings)
			require.Eventually(t, func() bool { return in.reached(sent) }, patience, 100*time.Millisecond)
			assert.Equal(t, messageCounts{Received: sent, Stored: sent}, in.counts())
			in.stop()
		})
	}
	t.Run("QoS 1 and 2, MQTT 3.1.1 and 5", func(t *testing.T) {
		t.Parallel()
		in := newInstallation(t, t.TempDir())
		devices := newFleet(in, 8, perSecond/2, in.register)
		in.start()
		in.awaitReady()
		devices.start()
		stop := keepCutting(in, every)
		pause(in, length)
		t.Logf("%d cuts", stop())
		devices.drain(patience)
		require.Eventually(t, func() bool { return in.reached(1) }, patience, 100*time.Millisecond)
		assert.Zero(t, verifyDrained(in, devices).Duplicate, "no device had to send again")
		in.stop()
	})
}

// reached tells whether so many messages are stored and the server is well.
func (in *installation) reached(count int64) bool {
	var status struct{ Messages messageCounts }
	show := exec.Command(in.program, "status", "--json")
	show.Env = in.env
	out, err := show.Output() // fails while the subscriber is away
	return err == nil && json.Unmarshal(out, &status) == nil && status.Messages.Stored >= count && status.Messages.Pending == 0
}

// keepCutting cuts the connection of the server's subscriber to its own TLS listener until stop, which returns how often.
func keepCutting(in *installation, every time.Duration) (stop func() int) {
	in.t.Helper()
	server, err := unix.PidfdOpen(in.server.Pid, 0)
	if err != nil {
		in.t.Skipf("this kernel lends no sockets: %v", err)
	}
	_, port, err := net.SplitHostPort(in.tls)
	require.NoError(in.t, err)
	number, err := strconv.Atoi(port)
	require.NoError(in.t, err)
	done, cuts := make(chan struct{}), 0
	var working sync.WaitGroup
	working.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				cuts += cutConnections(in.server.Pid, server, number, cuts)
			}
		}
	})
	once := sync.OnceValue(func() int {
		close(done)
		working.Wait()
		_ = unix.Close(server)
		return cuts
	})
	in.t.Cleanup(func() { assert.Greater(in.t, once(), 1, "connections cut") })
	return once
}

// cutConnections borrows the sockets of a process and ends those that it has opened to a port: in turn in order, so
// that what is on the way still arrives, and with a reset, which throws it away on both sides.
func cutConnections(pid, pidfd, port, turn int) (cuts int) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			continue // closed meanwhile
		}
		if peerPort(fd) == port {
			if turn%2 == 0 {
				err = unix.Shutdown(fd, unix.SHUT_RDWR)
			} else {
				err = reset(fd)
			}
			if err == nil {
				cuts++
			}
		}
		_ = unix.Close(fd)
	}
	return cuts
}

func peerPort(fd int) int {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return 0
	}
	switch a := peer.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}

// reset aborts a TCP connection: that is what connecting it to no address does (connect(2)).
func reset(fd int) error {
	nowhere := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nowhere)), unsafe.Sizeof(nowhere))
	if errno != 0 {
		return errno
	}
	return nil
}
