package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/plantops/plantops/certs/certstest"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"plantops": main})
}

// TestScripts runs the program as a person would: one scenario a file. The settings that tests need come
// as environment variables: ports are free ones, and nothing outside $WORK is touched.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(scriptsTimeout),
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would sleep a second at each exit
			env.Setenv("PLANTOPS_DATA_DIR", filepath.Join(env.WorkDir, "data"))
			env.Setenv("PLANTOPS_LISTENERS_TCP_ADDRESS", "127.0.0.1:0")
			env.Setenv("PLANTOPS_LISTENERS_TLS_ADDRESS", "127.0.0.1:0")
			env.Setenv("PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS", "127.0.0.1:0")
			env.Setenv("PLANTOPS_HTTP_ADDRESS", "127.0.0.1:0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready":   awaitServer,
			"logged":  awaitLogged,
			"signal":  signalServer,
			"exits":   runExpecting,
			"ca":      writeCA(t),
			"header":  patchDatabase,
			"publish": publishReading,
		},
	})
}

// scriptsTimeout ends scripts that hang.
const scriptsTimeout = 5 * time.Minute

// patience is how long scripts and tests wait for a state before they fail.
const patience = time.Minute

// awaitServer waits until the server in a data directory is ready: ready [DIR].
func awaitServer(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs("data")
	if len(args) > 0 {
		dir = ts.MkAbs(args[0])
	}
	await(ts, "a server in "+dir, func() bool {
		server, err := control.Dial(context.Background(), filepath.Join(dir, "plantops.sock"))
		if err != nil {
			return false
		}
		s, err := server.Status(context.Background())
		return err == nil && s.Running
	})
}

// awaitLogged waits until a file contains a text: logged FILE TEXT.
func awaitLogged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: logged FILE TEXT")
	}
	await(ts, args[1]+" in "+args[0], func() bool { return strings.Contains(ts.ReadFile(args[0]), args[1]) })
}

func await(ts *testscript.TestScript, what string, there func() bool) {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !there(); <-poll.C {
		if time.Now().After(deadline) {
			ts.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// signalServer sends a signal to the server that holds the lock of a data directory: signal HUP|TERM.
func signalServer(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}
	if neg || len(args) != 1 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal HUP|TERM")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile("data/plantops.lock")))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, signals[args[0]]))
}

// runExpecting runs a command that must end with an exit code: exits CODE COMMAND [ARG...].
func runExpecting(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %v: %v", args[1:], err)
	}
	if args[0] != strconv.Itoa(code) {
		ts.Fatalf("%v ended with exit code %d, want %s", args[1:], code, args[0])
	}
}

// writeCA writes the certificate of a certificate authority: ca FILE valid|expired.
func writeCA(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: ca FILE valid|expired")
		}
		ca := certstest.New(t, func(c *x509.Certificate) {
			if args[1] == "expired" {
				c.NotBefore, c.NotAfter = c.NotBefore.Add(-24*time.Hour), c.NotBefore
			}
		})
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), ca.PEM(), 0o644))
	}
}

// patchDatabase changes a number in the header of a database, or what its first page is: header FILE user_version|application_id|root N.
// https://www.sqlite.org/fileformat.html#the_database_header
func patchDatabase(ts *testscript.TestScript, neg bool, args []string) {
	offsets := map[string]int64{"user_version": 60, "application_id": 68, "root": 100}
	if neg || len(args) != 3 || offsets[args[1]] == 0 {
		ts.Fatalf("usage: header FILE user_version|application_id|root N")
	}
	n, err := strconv.ParseUint(args[2], 10, 32)
	ts.Check(err)
	file, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = file.WriteAt(binary.BigEndian.AppendUint32(nil, uint32(n)), offsets[args[1]])
	ts.Check(errors.Join(err, file.Close()))
}

// publishReading sends one message with the credentials that "device add --json" printed, over TLS, and
// waits for the acknowledgement: publish CREDENTIALS PAYLOAD [TOPIC].
func publishReading(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: publish CREDENTIALS PAYLOAD [TOPIC]")
	}
	var given struct { // what other programs rely on
		Username string `json:"mqtt_username"`
		Password string `json:"mqtt_password"`
		Host     string `json:"host"`
		Port     int    `json:"port"`
		Topic    string `json:"topic"`
		CA       string `json:"ca"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &given))
	if len(args) == 3 {
		given.Topic = args[2]
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(given.CA))
	device, err := ingest.Connect(context.Background(), ingest.PublisherOptions{
		Address: hostPort(given.Host, given.Port), TLS: &tls.Config{RootCAs: roots},
		Username: given.Username, Password: given.Password,
	})
	if err == nil {
		err = device.Publish(context.Background(), given.Topic, []byte(args[1]), 1)
		device.Close()
	}
	if neg && err == nil {
		ts.Fatalf("the broker took the message")
	}
	if !neg {
		ts.Check(err)
	}
}
