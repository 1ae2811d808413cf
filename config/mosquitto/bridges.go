package mosquitto

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bridge is an item of bridges in plantops.yaml.
type Bridge struct {
	Name          string        `json:"name"`
	Address       string        `json:"address"`
	TLS           bool          `json:"tls"`
	CACert        string        `json:"ca_cert,omitempty"`
	ClientCert    string        `json:"client_cert,omitempty"`
	ClientKey     string        `json:"client_key,omitempty"`
	ALPN          string        `json:"alpn,omitempty"`
	Username      string        `json:"username,omitempty"`
	ClientID      string        `json:"client_id,omitempty"`
	Keepalive     string        `json:"keepalive,omitempty"`
	SessionExpiry string        `json:"session_expiry,omitempty"`
	Topics        []BridgeTopic `json:"topics"`
}

// BridgeTopic is an item of its topics.
type BridgeTopic struct {
	Filter       string `json:"filter"`
	Direction    string `json:"direction"`
	QoS          int    `json:"qos"`
	LocalPrefix  string `json:"local_prefix,omitempty"`
	RemotePrefix string `json:"remote_prefix,omitempty"`
}

// bridge is a connection line with the options that follow it.
type bridge struct {
	opened *directive
	given  map[string]*directive // by option, but topic
	topics []*directive
}

// openBridge begins a bridge: connection NAME.
func (t *translator) openBridge(d *directive) {
	t.bridge = &bridge{opened: d, given: map[string]*directive{}}
	t.bridges = append(t.bridges, t.bridge)
}

// bridged is the option of a bridge.
func bridged() option { return option{take: (*translator).ofBridge} }

// ofBridge notes an option of the bridge that was begun last.
func (t *translator) ofBridge(d *directive) {
	switch b := t.bridge; {
	case b == nil:
		d.settle(NoEquivalent, "it belongs to a bridge, and there is no connection line before it; Mosquitto refuses it too")
	case d.option == "topic":
		b.topics = append(b.topics, d)
	default:
		name := cmp.Or(map[string]string{"addresses": "address", "clientid": "remote_clientid", "username": "remote_username",
			"password": "remote_password"}[d.option], d.option)
		b.given[name] = latest(b.given[name], d)
	}
}

// usesTLS are the options any of which makes a bridge use TLS.
var usesTLS = []string{"bridge_cafile", "bridge_capath", "bridge_certfile", "bridge_tls_use_os_certs", "bridge_alpn"}

// settleBridges makes an item of each bridge.
func (t *translator) settleBridges() {
	var list []Bridge
	for _, b := range t.bridges {
		item := Bridge{Name: bridgeNameOf(b.opened.value)}
		for _, option := range usesTLS {
			item.TLS = item.TLS || b.given[option] != nil
		}
		for _, d := range b.given {
			b.settleOption(t, d, &item)
		}
		for _, d := range b.topics {
			if topic, ok := bridgeTopicOf(d); ok {
				item.Topics = append(item.Topics, topic)
			}
		}
		switch {
		case item.Address == "" || len(item.Topics) == 0:
			b.opened.settle(NoEquivalent, "a bridge needs an address and a topic that can be taken over")
			for _, d := range slices.Concat(b.topics, slices.Collect(maps.Values(b.given))) {
				d.settle(NoEquivalent, "it belongs to a bridge that is not taken over, see its connection line")
			}
			continue
		case item.Name != b.opened.value:
			b.opened.settle(Differently, "%s; its name becomes %s", bridgeNote, item.Name)
		default:
			b.opened.settle(Differently, "%s", bridgeNote)
		}
		list = append(list, item)
	}
	if len(list) > 0 {
		t.set("bridges", list, t.bridges[0].opened.Position())
	}
}

// settleOption takes over one option, by the name that it has now.
func (b *bridge) settleOption(t *translator, d *directive, item *Bridge) {
	taken := func(field *string, value string) {
		*field = value
		d.settle(TakenOver, "")
	}
	seconds := func(field *string, least, most int) {
		if n, ok := d.number(); ok {
			taken(field, strconv.Itoa(min(max(n, least), most))+"s")
			if n < least || n > most {
				d.settle(Differently, "from %d to %d seconds are possible", least, most)
			}
		}
	}
	switch d.option {
	case "address", "addresses":
		all := strings.Fields(d.value)
		host, port, err := net.SplitHostPort(all[0])
		if err != nil {
			host, port = all[0], "1883"
		}
		taken(&item.Address, net.JoinHostPort(host, port))
		if len(all) > 1 {
			d.settle(Differently, "a bridge has one address, the first is taken: let the others be addresses of one name in the DNS")
		}
	case "bridge_cafile":
		taken(&item.CACert, t.absolute(d.value))
	case "bridge_certfile":
		taken(&item.ClientCert, t.absolute(d.value))
	case "bridge_keyfile":
		taken(&item.ClientKey, t.absolute(d.value))
	case "bridge_alpn":
		taken(&item.ALPN, d.value)
	case "remote_username", "username":
		taken(&item.Username, d.value)
	case "remote_password", "password":
		d.settle(Differently, "it is not copied: write it into a file for the service alone, and name that file in password_file of the bridge")
	case "remote_clientid", "clientid":
		taken(&item.ClientID, d.value)
	case "keepalive_interval":
		seconds(&item.Keepalive, 5, 65535)
	case "bridge_session_expiry_interval":
		seconds(&item.SessionExpiry, 60, 30*24*3600)
	case "bridge_protocol_version":
		if d.settle(TakenOver, ""); d.word() != "mqttv50" {
			d.settle(NoEquivalent, "bridges speak MQTT 5 only: the other broker must too")
		}
	case "bridge_capath":
		d.settle(Differently, "there is no folder of authorities: put the certificates into one file and name it in ca_cert of the bridge")
	default:
		o, known := bridgeOptions[d.option]
		if !known {
			o = lacks(bridgeLine)
		}
		if o.take != nil {
			o.take(t, d)
			return
		}
		d.settle(o.kind, "%s", o.note)
	}
}

// bridgeOptions are those that need no item. What is not among them has no equivalent.
var bridgeOptions = map[string]option{
	"bridge_insecure":          either(lacks("the other broker's certificate is always verified: set ca_cert, and an address that is in the certificate"), same),
	"bridge_tls_use_os_certs":  same,
	"bridge_outgoing_retain":   either(same, lacks(bridgeLine)),
	"cleansession":             either(differs("the session always lasts, for session_expiry"), same),
	"notifications":            either(differs(notifyNote), same),
	"notifications_local_only": differs(notifyNote),
	"notification_topic":       differs(notifyNote),
	"restart_timeout":          differs("a bridge waits from a second to a minute, doubling"),
	"try_private":              either(differs("loops are found by a user property instead"), same),
	"start_type": {take: func(_ *translator, d *directive) {
		if d.settle(TakenOver, ""); d.word() != "automatic" {
			d.settle(NoEquivalent, "a bridge always connects, and stays connected")
		}
	}},
	"bridge_bind_address": lacks(bridgeLine), "bridge_ciphers": lacks(tlsNote), "bridge_ciphers_tls1.3": lacks(tlsNote),
	"bridge_tls_version": lacks(tlsNote), "bridge_identity": lacks(pskNote), "bridge_psk": lacks(pskNote),
	"local_clientid": lacks(localNote), "local_username": lacks(localNote), "local_password": lacks(localNote),
	"local_cleansession": lacks(localNote),
}

const (
	bridgeNote = "it is an item of bridges; the other broker must speak MQTT 5, see docs/settings.md"
	bridgeLine = "this cannot be set for a bridge"
	notifyNote = "plantops status says how each bridge is; nothing is published"
	localNote  = "here a bridge is a part of the program and needs no account"
)

var notInBridgeName = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// bridgeNameOf makes a name as bridges have them here.
func bridgeNameOf(name string) string {
	name = notInBridgeName.ReplaceAllString(name, "-")
	return name[:min(len(name), 32)]
}

// bridgeTopicOf reads topic PATTERN [out|in|both [QOS [LOCAL_PREFIX [REMOTE_PREFIX]]]]; "" stands for nothing.
func bridgeTopicOf(d *directive) (topic BridgeTopic, ok bool) {
	words := strings.Fields(d.value)
	for i, word := range words {
		if word == `""` {
			words[i] = ""
		}
	}
	words = append(words, make([]string, 5)...)[:max(5, len(words))]
	topic = BridgeTopic{Filter: words[0], Direction: cmp.Or(words[1], "out"), LocalPrefix: words[3], RemotePrefix: words[4]}
	qos, err := strconv.Atoi(cmp.Or(words[2], "0"))
	topic.QoS = qos
	switch {
	case len(words) > 5 || err != nil || qos < 0 || qos > 2 || !slices.Contains([]string{"out", "in", "both"}, topic.Direction):
		d.settle(NoEquivalent, "it must be topic PATTERN out, in or both QOS LOCAL_PREFIX REMOTE_PREFIX; Mosquitto refuses it too")
		return topic, false
	case topic.Filter == "" && (topic.LocalPrefix == "" || topic.RemotePrefix == ""):
		d.settle(NoEquivalent, "without a pattern both prefixes must be there; Mosquitto refuses it too")
		return topic, false
	case topic.Direction != "out" && strings.HasPrefix(topic.LocalPrefix+topic.Filter, "$"):
		d.settle(NoEquivalent, "nobody may publish at topics that begin with $")
		return topic, false
	}
	d.settle(TakenOver, "")
	return topic, true
}

// bridgeLines are the bridges as plantops.yaml has them, one a line.
func bridgeLines(bridges []Bridge, marshal func(any) ([]byte, error)) (string, error) {
	var b strings.Builder
	for _, one := range bridges {
		value, err := marshal(one)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  - %s\n", value)
	}
	return b.String(), nil
}
