package config

import (
	"cmp"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/plantops/plantops/broker/topic"
)

// Bridge connects the embedded broker to another one.
type Bridge struct {
	Name          string
	Address       string // host:port
	TLS           bool   `key:"tls"`
	CACert        string `key:"ca_cert"` // "" means the roots of the system
	ClientCert    string `key:"client_cert"`
	ClientKey     string `key:"client_key"`
	ALPN          string `key:"alpn"`
	Username      string
	Password      Secret
	PasswordFile  string        `key:"password_file"` // what it holds is in Password
	ClientID      string        `key:"client_id"`     // "" means one of the host's name and that of the bridge
	Version       versionName   // of MQTT: 5 is all there is
	Keepalive     time.Duration // from 5 s
	SessionExpiry time.Duration `key:"session_expiry"`
	Topics        []BridgeTopic
}

// BridgeTopic is what a bridge carries.
type BridgeTopic struct {
	Filter       string
	Direction    string // out, in or both
	QoS          int    `key:"qos"`
	LocalPrefix  string `key:"local_prefix"`
	RemotePrefix string `key:"remote_prefix"`
}

// versionName is a version of MQTT as people write it, which YAML may take for a number.
type versionName string

func newBridge() Bridge {
	return Bridge{TLS: true, Version: "5", Keepalive: time.Minute, SessionExpiry: 7 * day}
}

func (t *BridgeTopic) setDefaults() { t.QoS, t.Direction = 1, "out" }

// Out and In tell where the messages of the topic go.
func (t BridgeTopic) Out() bool { return t.Direction == "out" || t.Direction == "both" }

// In is Out for the other direction.
func (t BridgeTopic) In() bool { return t.Direction == "in" || t.Direction == "both" }

// bridgeNames are the bridges as a person calls them.
func bridgeNames(bridges []Bridge) string {
	names := make([]string, len(bridges))
	for i, b := range bridges {
		names[i] = b.Name
	}
	return strings.Join(names, ", ")
}

// bridges reads bridges: a list whose items are keys and values. What can be read is returned although something else
// cannot, so that all that is wrong is found at once.
func (f *file) bridges(key, node *yaml.Node, s setting) (any, bool) {
	list := make([]Bridge, len(node.Content))
	for i, item := range node.Content {
		path := fmt.Sprintf("%s[%d]", s.path, i)
		f.sources[path] = f.line(item)
		list[i] = newBridge()
		if item.Kind != yaml.MappingNode {
			f.problem(item, path, "", "must have keys such as name, address and topics")
			continue
		}
		f.fill(item, path, reflect.ValueOf(&list[i]).Elem())
		f.bridgePassword(item, path, &list[i])
	}
	f.sources[s.path] = f.line(key)
	return list, true
}

// bridgePassword reads the file that holds a password.
func (f *file) bridgePassword(item *yaml.Node, path string, b *Bridge) {
	if b.PasswordFile == "" {
		return
	}
	if b.Password != "" {
		f.problem(item, path, "", "has both password and password_file; remove one")
		return
	}
	text, err := readSecret(b.PasswordFile)
	if err != nil {
		f.problem(item, path, "", "password_file: "+err.Error())
		return
	}
	b.Password = Secret(text)
}

var bridgeName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`) // a number in it would make it kilobytes larger

// bridges checks each bridge by itself, and what they must not share.
func (v *validator) bridges() {
	list := v.config.Bridges
	if len(list) > 0 && !v.config.Embedded() {
		v.refuse("bridges", "but all listeners are disabled: a bridge is between the embedded broker and another one; enable a listener")
	}
	for i := range list {
		b := &list[i]
		c := itemCheck{v, fmt.Sprintf("bridges[%d]", i)}
		switch {
		case len(b.Name) > 32 || !bridgeName.MatchString(b.Name):
			c.refuse("name", b.Name, "must be a name of at most 32 letters, digits, - and _")
		case slices.ContainsFunc(list[:i], func(o Bridge) bool { return o.Name == b.Name }):
			c.refuse("name", b.Name, "is the name of another bridge; give each its own")
		}
		twin := func(o Bridge) bool { return b.ClientID != "" && o.ClientID == b.ClientID && o.Address == b.Address }
		if slices.ContainsFunc(list[:i], twin) {
			c.refuse("client_id", b.ClientID, "is that of another bridge to the same broker: they would take the connection from each "+
				"other")
		}
		c.connection(b)
		c.login(b)
		if len(b.Topics) == 0 {
			c.refuse("topics", "", "must have at least one item, for example {filter: devices/#, direction: out}")
		}
		for j, t := range b.Topics {
			inner := itemCheck{v, fmt.Sprintf("%s.topics[%d]", c.path, j)}
			inner.topic(t)
			if slices.ContainsFunc(b.Topics[:j], func(o BridgeTopic) bool { return o == t }) {
				inner.refuse("filter", t.Filter, "is there twice; remove one")
			}
		}
	}
}

// itemCheck checks what stands below a path, in an item of a list.
type itemCheck struct {
	*validator
	path string
}

func (c itemCheck) refuse(key, value, remedy string, args ...any) {
	if value != "" {
		value = shown(value)
	}
	c.problems = append(c.problems, problem{key: c.path + "." + key, value: value, remedy: fmt.Sprintf(remedy, args...)})
}

func (c itemCheck) connection(b *Bridge) {
	host, port, err := net.SplitHostPort(b.Address)
	number, _ := strconv.Atoi(port)
	l := c.config.Listeners
	own := []int{fixedPort(l.TCP.Enabled, l.TCP.Address), fixedPort(l.TLS.Enabled, l.TLS.Address)}
	switch {
	case err != nil || !validPort(port) || number == 0 || !validHost(host):
		c.refuse("address", b.Address, "must be host:port of the other broker, for example mqtt.example.org:8883")
	case isLoopback(b.Address) && slices.Contains(own, number):
		c.refuse("address", b.Address, "is this broker itself; a bridge needs another one")
	}
	for _, key := range [][2]string{{"ca_cert", b.CACert}, {"client_cert", b.ClientCert}, {"client_key", b.ClientKey},
		{"alpn", b.ALPN}} {
		if key[1] != "" && !b.TLS {
			c.refuse(key[0], key[1], "is for TLS only; set tls to true or remove it")
		}
	}
	if (b.ClientCert == "") != (b.ClientKey == "") {
		c.refuse(missing(b.ClientCert, "client_cert", "client_key"), "", "client_cert and client_key go together; set both or none")
	}
	if len(b.ALPN) > 255 {
		c.refuse("alpn", b.ALPN, "must be the name of one protocol of at most 255 bytes, for example x-amzn-mqtt-ca")
	}
	switch b.Version {
	case "5", "5.0", "mqttv50":
	default:
		c.refuse("version", string(b.Version), "must be 5: bridges speak MQTT 5 only. "+
			"If that broker knows no MQTT 5, have it make the bridge to here: PlantOps takes bridges of MQTT 3.1.1")
	}
	if b.Keepalive < 5*time.Second || b.Keepalive > 65535*time.Second {
		c.refuse("keepalive", formatDuration(b.Keepalive), "must be from 5s to 18h12m15s")
	}
	if b.SessionExpiry < time.Minute || b.SessionExpiry > 30*day {
		c.refuse("session_expiry", formatDuration(b.SessionExpiry), "must be from 1m to 30d, which is as long as a session is kept here")
	}
}

func (c itemCheck) login(b *Bridge) {
	for _, key := range [][2]string{{"username", b.Username}, {"client_id", b.ClientID}} {
		if len(key[1]) > 65535 {
			c.refuse(key[0], key[1], "must be at most 65535 bytes")
		}
	}
	if p := b.Password.Reveal(); len(p) > 65535 || !printable(p) {
		c.refuse("password", redacted, "must be at most 65535 bytes of text, without line ends and other control characters")
	}
}

func (c itemCheck) topic(t BridgeTopic) {
	if t.Direction != "out" && t.Direction != "in" && t.Direction != "both" {
		c.refuse("direction", t.Direction, "must be out (from here to the other broker), in, or both")
		return
	}
	if t.QoS < 0 || t.QoS > 2 {
		c.refuse("qos", strconv.Itoa(t.QoS), "must be 0, 1 or 2")
	}
	if t.Filter == "" && (t.LocalPrefix == "" || t.RemotePrefix == "") {
		c.refuse("filter", "", "must be a topic filter, for example devices/#; it may be empty where both prefixes are whole topics")
		return
	}
	levels := max(c.config.Limits.MaxTopicLevels, leastLevels)
	for _, side := range []struct {
		key, prefix string
		filters     topic.Filters
		sends       bool // messages of that side are published there
	}{
		{"local_prefix", t.LocalPrefix, topic.Filters{NoControl: true, MaxLevels: levels}, t.In()},
		{"remote_prefix", t.RemotePrefix, topic.Filters{NoControl: true}, false},
	} {
		whole := side.prefix + t.Filter
		key, value := "filter", whole
		if side.prefix != "" {
			key, value = side.key, side.prefix
		}
		switch fault := side.filters.Fault(whole); {
		case strings.ContainsAny(side.prefix, "+#"):
			c.refuse(key, value, "must have no + and no #; those stand in filter")
		case topic.Shared(whole):
			c.refuse(key, value, "must not be a shared subscription: a bridge is one subscriber")
		case fault != topic.Faultless:
			c.refuse(key, value, "%s must be an MQTT topic filter: %s", cmp.Or(shown(whole), "it"), fault)
		case side.sends && whole[0] == '$':
			c.refuse(key, value, "must not begin with $: nobody may publish there")
		}
	}
}

// odd returns what works but is probably not what is wanted.
func (c Config) oddBridges() []string {
	var warnings []string
	for i, b := range c.Bridges {
		everything := map[bool]bool{}
		for _, t := range b.Topics {
			if t.Filter == "#" && t.LocalPrefix == "" && t.RemotePrefix == "" {
				everything[true], everything[false] = everything[true] || t.Out(), everything[false] || t.In()
			}
		}
		if everything[true] && everything[false] {
			warnings = append(warnings, fmt.Sprintf("bridges[%d].topics: %s carries everything both ways, under the same names: where there is "+
				"another way between the two brokers, messages come twice; name what is to be carried, or give it a prefix", i, b.Name))
		}
		if !b.TLS && b.Password != "" && !isLoopback(b.Address) {
			warnings = append(warnings, fmt.Sprintf("bridges[%d].tls: %s sends its password without encryption; use TLS if that broker does", i, b.Name))
		}
	}
	return warnings
}
