//go:build linux

package torture_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
	"github.com/plantops/plantops/cmd/plantops/outside/load"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// TestTheWayIntoTheStoreIsCutUnderLoad cuts the subscriber's connection to the broker over and over while devices send:
// what is acknowledged, and with QoS 0 all that is sent, must be stored, once, and the equation must hold. PLANTOPS_CUT
// makes it longer.
func TestTheWayIntoTheStoreIsCutUnderLoad(t *testing.T) {
	length := setting.Duration(t, "PLANTOPS_CUT", 2*time.Second)
	every := min(length/20, time.Second)
	const perSecond = 2000
	for _, qos := range []byte{0, 1} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			t.Parallel()
			in, s := program.Install(t, t.TempDir()), load.Load{QoS: qos, Devices: 10, Window: 100, Rate: perSecond}
			s.Readings = int(length.Seconds() * perSecond)
			ids := make([]string, s.Devices)
			for i := range ids {
				ids[i] = load.DeviceID(i)
			}
			s.Secrets, s.Address = in.Register(ids...), in.TCP
			in.Start()
			in.AwaitReady()
			devices, err := s.Connect()
			require.NoError(t, err)
			stop := keepCutting(in, every)
			seen, err := s.Run(devices)
			require.NoError(t, err)
			t.Logf("%d acknowledged, %d cuts", seen.Acknowledged, stop())
			if qos > 0 {
				assert.Equal(t, s.Readings, seen.Acknowledged)
			}
			sent := int64(s.Readings)
			require.Eventually(t, func() bool { return in.Reached(sent) }, setting.Patience, 100*time.Millisecond)
			assert.Equal(t, program.MessageCounts{Received: sent, Stored: sent}, in.Counts())
			in.Stop()
		})
	}
	t.Run("QoS 1 and 2, MQTT 3.1.1 and 5", func(t *testing.T) {
		t.Parallel()
		in := program.Install(t, t.TempDir())
		devices := fleet.New(in, 8, perSecond/2, in.Register)
		in.Start()
		in.AwaitReady()
		devices.Start()
		stop := keepCutting(in, every)
		program.Pause(in, length)
		t.Logf("%d cuts", stop())
		devices.Drain(setting.Patience)
		require.Eventually(t, func() bool { return in.Reached(1) }, setting.Patience, 100*time.Millisecond)
		assert.Zero(t, fleet.VerifyDrained(in, devices).Duplicate, "no device had to send again")
		in.Stop()
	})
}

// keepCutting cuts the connection of the server's subscriber to its own TLS listener until stop, which returns how often.
func keepCutting(in *program.Installation, every time.Duration) (stop func() int) {
	in.T.Helper()
	server, err := unix.PidfdOpen(in.Server.Pid, 0)
	if err != nil {
		in.T.Skipf("this kernel lends no sockets: %v", err)
	}
	_, port, err := net.SplitHostPort(in.TLS)
	require.NoError(in.T, err)
	number, err := strconv.Atoi(port)
	require.NoError(in.T, err)
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
				cuts += cutConnections(in.Server.Pid, server, number, cuts)
			}
		}
	})
	once := sync.OnceValue(func() int {
		close(done)
		working.Wait()
		_ = unix.Close(server)
		return cuts
	})
	in.T.Cleanup(func() { assert.Greater(in.T, once(), 1, "connections cut") })
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
