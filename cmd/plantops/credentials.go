package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
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
