// Package snippet writes what people paste to get a new device going: an Arduino sketch, an ESPHome configuration, the
// commands for Tasmota's console and so on, each with the device's credentials, TLS and our CA filled in.
//
// It is pure: facts in, text out. Who makes the credentials and where the text goes is for the command.
package snippet

import (
	"crypto/x509"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Facts are what a form is filled in with.
type Facts struct {
	Device   string // its id, which is also its user name and client id
	Password string
	Host     string // as the device calls the server: a name or an address without brackets
	Port     int
	Topic    string // of its readings
	CA       string // PEM, one certificate or more; empty: without TLS
	// Servers are the certificates that the server shows, PEM, the leaf of each chain. Only Tasmota needs them: it knows
	// the server by its key.
	Servers string
}

// File is one file of a form.
type File struct {
	Name string // relative, with slashes; safe whatever the device is called
	Text string
}

//go:embed form
var forms embed.FS

// form is how one of the forms is made.
type form struct {
	about string // one line for people
	file  string // name of the file; %s is the device as a file name
	check func(Facts) error
	write func(Facts) (string, error)
}

func known() map[string]form {
	return map[string]form{
		"arduino":     {"a sketch for an ESP32", "%[1]s/%[1]s.ino", nil, fromTemplate("arduino.ino.tmpl")},
		"esphome":     {"a configuration for ESPHome", "%s.yaml", nil, fromTemplate("esphome.yaml.tmpl")},
		"micropython": {"main.py for MicroPython on an ESP32 or Pico W", "main.py", nil, fromTemplate("micropython.py.tmpl")},
		"mosquitto":   {"a shell script with mosquitto_pub", "%s.sh", nil, fromTemplate("mosquitto.sh.tmpl")},
		"nodered":     {"a flow to import into Node-RED", "%s.json", nil, nodeRED},
		"python":      {"a Python program with paho-mqtt 1 or 2", "%s.py", nil, fromTemplate("python.py.tmpl")},
		"tasmota":     {"commands for Tasmota's console", "%s.txt", checkTasmota, fromTemplate("tasmota.txt.tmpl")},
	}
}

// Forms are the names of all forms, sorted.
func Forms() []string {
	var names []string
	for name := range known() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// About says in a few words what the form is; empty for one that is not known.
func About(name string) string { return known()[name].about }

// Check says why Write could not write the form; Password may still be empty. So a device is registered only when it can be told.
func Check(name string, f Facts) error {
	one, there := known()[name]
	switch {
	case !there:
		return fmt.Errorf("there is no form %q, only %s", name, strings.Join(Forms(), ", "))
	case f.Host == "":
		return errors.New("no host that the device could connect to")
	case one.check != nil:
		return one.check(f)
	}
	return nil
}

// Write returns the file of the form. Its error is that of Check.
func Write(name string, f Facts) (File, error) {
	if err := Check(name, f); err != nil {
		return File{}, err
	}
	one := known()[name]
	text, err := one.write(f)
	if err != nil {
		return File{}, fmt.Errorf("write the form %s: %w", name, err)
	}
	file := one.file
	if strings.Contains(file, "%") {
		file = fmt.Sprintf(file, f.FileName())
	}
	return File{file, text}, nil
}

func fromTemplate(name string) func(Facts) (string, error) {
	return func(f Facts) (string, error) {
		text, err := forms.ReadFile("form/" + name)
		if err != nil {
			return "", err
		}
		return fill(string(text), f.values())
	}
}

var notInFileName = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// FileName is the device as the name of a file.
func (f Facts) FileName() string {
	name := strings.Trim(notInFileName.ReplaceAllString(f.Device, "-"), ".-")
	if name == "" {
		return "device"
	}
	return name
}

var notInHostName = regexp.MustCompile(`[^a-z0-9]+`)

// HostName is the device as a host name of at most 24 characters, as ESPHome wants its node names.
func (f Facts) HostName() string {
	name := strings.Trim(notInHostName.ReplaceAllString(strings.ToLower(f.Device), "-"), "-")
	if len(name) > 24 {
		name = strings.Trim(name[:24], "-")
	}
	if name == "" {
		return "device"
	}
	return name
}

// TLS reports whether the server is reached with TLS.
func (f Facts) TLS() bool { return f.CA != "" }

// Prefix is the topic below which everything of the device is.
func (f Facts) Prefix() string { return strings.TrimSuffix(f.Topic, "/telemetry") }

// servers are the certificates in Servers.
func (f Facts) servers() ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for rest := []byte(f.Servers); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return list, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the server's certificate: %w", err)
		}
		list = append(list, c)
	}
}
