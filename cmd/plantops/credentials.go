package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// credentials are all that a device, a person or another program needs to connect. They are printed once and kept nowhere.
type credentials struct {
	DeviceID string   `json:"device_id,omitempty"` // empty: not a device's
	Username string   `json:"mqtt_username"`
	Password string   `json:"mqtt_password,omitempty"` // empty: its owner chose it
	Host     string   `json:"host"`
	Port     int      `json:"port"`
	TLS      bool     `json:"tls"`
	Names    []string `json:"names,omitempty"` // other names of the host
	Topic    string   `json:"topic,omitempty"` // of a device's readings
	CA       string   `json:"ca,omitempty"`    // PEM; empty without TLS
	*rules            // of a new user

	Snippet string `json:"snippet,omitempty"` // what to paste into the device, with --for

	caPath string
}

func deviceCredentials(id, password string, cfg config.Config, reach control.Contact) credentials {
	given := userCredentials(id, password, cfg, reach)
	given.DeviceID, given.Topic = id, "devices/"+id+"/telemetry"
	return given
}

// userCredentials are those of a user, with a password only if nobody has seen it yet.
func userCredentials(name, password string, cfg config.Config, reach control.Contact) credentials {
	given := credentials{Username: name, Password: password}
	address := reach.TCP
	if reach.TLS != "" {
		address, given.TLS, given.CA, given.caPath = reach.TLS, true, reach.CA, cfg.CertsDir()+"/ca.crt"
		if cfg.Certs.CACert != "" {
			given.caPath = cfg.Certs.CACert
		}
	}
	host, port, _ := net.SplitHostPort(address)
	given.Port, _ = strconv.Atoi(port)
	given.Host, given.Names = reachableHost(host, cfg.Certs.ExtraNames)
	return given
}

// reachableHost returns how devices should call a listener that is bound to host: by address where
// possible, because an ESP32 resolves no .local names. Names that a person gave the box come first:
// behind a container or a router only these are right.
func reachableHost(bound string, extraNames []string) (host string, others []string) {
	ip := net.ParseIP(bound)
	switch {
	case len(extraNames) > 0:
		host = extraNames[0]
		others = append(others, extraNames[1:]...)
	case ip != nil && !ip.IsUnspecified():
		return bound, nil
	case bound != "" && ip == nil:
		return bound, nil
	default:
		host = lanAddress()
	}
	if name, err := os.Hostname(); err == nil {
		others = append(others, name)
		if !strings.Contains(name, ".") {
			others = append(others, name+".local")
		}
	}
	return host, others
}

// lanAddress is the address that this machine uses towards others; "localhost" without a network.
func lanAddress() string {
	// Choosing a route for a UDP socket sends nothing. 192.0.2.1 is reserved for documentation.
	if conn, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer conn.Close()
		return conn.LocalAddr().(*net.UDPAddr).IP.String()
	}
	addresses, _ := net.InterfaceAddrs() // on error there are none
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsPrivate() {
			return n.IP.String()
		}
	}
	return "localhost"
}

// printCredentials says what has come about, and then what is needed to connect.
func printCredentials(a *app, given credentials, said string) error {
	if given.Password != "" {
		said += " Its password is shown only this once."
	}
	host, transport := given.Host, "plain"
	if len(given.Names) > 0 {
		host += "  (also " + strings.Join(given.Names, ", ") + ")"
	}
	if given.TLS {
		transport = "TLS"
	}
	rows := [][]string{{"host", host}, {"port", fmt.Sprintf("%d (%s)", given.Port, transport)}, {"user", given.Username}}
	if given.Password != "" {
		rows = append(rows, []string{"password", given.Password})
	}
	if given.Topic != "" {
		rows = append(rows, []string{"topic", given.Topic})
	}
	if given.rules != nil {
		rows = append(rows, []string{"publish", filters(given.Publish)}, []string{"subscribe", filters(given.Subscribe)})
	}
	if given.CA != "" {
		rows = append(rows, []string{"CA", given.caPath})
	}
	fmt.Fprintf(a.stdout, "%s\n\n", said)
	return table(a.stdout, rows)
}

// maxPasswordFileBytes is more than any password may have.
const maxPasswordFileBytes = 4096

// passwordSource says where a password comes from; never from the command line, which others can see.
type passwordSource struct {
	file     string // "-" is standard input
	generate bool
}

// unseen is the password if nobody has seen it yet: only one that was drawn is shown.
func (s passwordSource) unseen(password string) string {
	if s.generate {
		return password
	}
	return ""
}

func addPasswordFlags(cmd *cobra.Command, source *passwordSource) {
	cmd.Flags().StringVar(&source.file, "password-file", "", "read the password from `FILE`, or from standard input with -")
	cmd.Flags().BoolVar(&source.generate, "generate", false, "draw a random password and show it once")
}

// password gets the password for name from where source says; on a terminal it asks for it twice.
func (a *app) password(cmd *cobra.Command, source passwordSource, name string) (string, error) {
	var password string
	var err error
	switch {
	case source.generate && source.file != "":
		return "", usageError(cmd, errors.New("give --password-file or --generate, not both"))
	case source.generate:
		return rand.Text(), nil
	case source.file == "-":
		password, err = a.passwordFromStdin()
	case source.file != "":
		password, err = passwordFromFile(source.file)
	case a.stdin != nil && term.IsTerminal(int(a.stdin.Fd())):
		password, err = a.askPassword(cmd.Context(), name)
	default:
		return "", usageError(cmd, errors.New("there is no terminal to ask for the password: give --password-file FILE, --password-file - or --generate"))
	}
	if err != nil {
		return "", err
	}
	return password, store.CheckPassword(password)
}

func (a *app) passwordFromStdin() (string, error) {
	if a.stdin == nil {
		return "", errors.New("read password: there is no standard input")
	}
	return readPassword(a.stdin)
}

func passwordFromFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	defer file.Close()
	return readPassword(file)
}

// readPassword reads everything; one line end after the password is not part of it.
func readPassword(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPasswordFileBytes))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// askPassword asks on the terminal, without showing what is typed, until it is long enough and twice the same.
func (a *app) askPassword(ctx context.Context, name string) (string, error) {
	for {
		first, err := a.readHidden(ctx, fmt.Sprintf("Password for %s: ", name))
		if err != nil {
			return "", err
		}
		if err := store.CheckPassword(first); err != nil {
			a.warn("%s; try again", err)
			continue
		}
		second, err := a.readHidden(ctx, "The same again: ")
		if err != nil {
			return "", err
		}
		if first == second {
			return first, nil
		}
		a.warn("the two differ; try again")
	}
}

func (a *app) readHidden(ctx context.Context, prompt string) (string, error) {
	fd := int(a.stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	fmt.Fprint(a.stderr, prompt)
	type answer struct {
		text []byte
		err  error
	}
	typed := make(chan answer, 1)
	go func() { // nothing interrupts the reading of a terminal; the program ends soon after ctx
		text, err := term.ReadPassword(fd)
		typed <- answer{text, err}
	}()
	select {
	case got := <-typed:
		fmt.Fprintln(a.stderr)
		if got.err != nil {
			return "", fmt.Errorf("read password: %w", got.err)
		}
		return string(got.text), nil
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}
