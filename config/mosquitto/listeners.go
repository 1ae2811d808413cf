package mosquitto

import (
	"net"
	"slices"
	"strconv"
	"strings"
)

// takenListeners are those that are taken over, one of a kind; nil where there is none of it.
type takenListeners struct {
	plain, tls, websocket *listener
}

// makesListener are the options that, before the first listener line, open Mosquitto's default listener.
var makesListener = []string{"port", "bind_address", "bind_interface", "protocol", "socket_domain", "max_connections", "cafile", "capath",
	"certfile", "keyfile", "crlfile", "require_certificate", "use_identity_as_username", "use_subject_as_username", "psk_hint"}

// completeListeners adds the default listener where Mosquitto opens it.
func (t *translator) completeListeners() {
	for _, option := range makesListener {
		d := t.first.given[option]
		if d == nil || option == "max_connections" && strings.HasPrefix(d.value, "-") {
			continue
		}
		if t.first.given["port"] != nil {
			t.listeners = slices.Insert(t.listeners, 0, t.first)
			return
		}
		t.listeners = append(t.listeners, t.first) // what was not asked for in so many words does not displace what was
		t.imply("(no port)", TakenOver, "Mosquitto opens its default listener on port 1883, since %s stands before any listener", option)
		return
	}
	if len(t.listeners) > 0 {
		if t.perListener && (t.first.security.passwordFile != nil || t.first.security.aclFile != nil) {
			t.listeners = append(t.listeners, t.first)
			t.imply("(no port)", TakenOver, "Mosquitto opens its default listener on port 1883, since options about accounts stand before any listener")
		}
		return
	}
	t.imply("(no listener)", TakenOver, "Mosquitto opens port 1883 on this machine only")
	t.first.given["bind_address"] = &directive{Line: &Line{}, option: "bind_address", value: "127.0.0.1"}
	t.listeners = append(t.listeners, t.first)
	if t.first.security.anonymous == nil {
		t.imply("(no allow_anonymous)", NoEquivalent, "without a listener line Mosquitto lets anonymous clients in; here everybody needs an account")
	}
}

// address returns where the listener listens.
func (l *listener) address() (host, port string, ok bool) {
	port = "1883"
	switch {
	case l.opened != nil:
		words := strings.Fields(l.opened.value)
		port = words[0]
		if len(words) > 1 && !strings.HasPrefix(words[1], "#") {
			host = words[1]
		}
	default:
		if d := l.given["port"]; d != nil {
			port = d.word()
		}
		host = l.value("bind_address")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return host, port, err == nil && n > 0
}

// settleAddress gives the lines that opened the listener their verdict.
func (l *listener) settleAddress(kind Kind, format string, args ...any) {
	if l.opened != nil {
		l.opened.settle(kind, format, args...)
	}
	for _, option := range []string{"port", "bind_address"} {
		if l.opened == nil {
			l.settle(option, kind, format, args...)
		}
	}
}

// position says which line opened the listener.
func (l *listener) position() string {
	for _, d := range []*directive{l.opened, l.given["port"]} {
		if d != nil {
			return d.Position()
		}
	}
	return ""
}

// settleListeners chooses a plain, a TLS and a websocket listener and judges all of them.
func (t *translator) settleListeners() {
	for _, l := range t.listeners {
		t.settleListener(l)
	}
	t.first.settleAll(Differently, "Mosquitto uses it for its default listener only, which is not opened here")
	t.completeTaken()
}

func (t *translator) settleListener(l *listener) {
	host, port, ok := l.address()
	protocol, secure := "mqtt", l.given["certfile"] != nil
	if d := l.given["protocol"]; d != nil {
		protocol = d.word()
	}
	address := net.JoinHostPort(host, port)
	leave := func(format string, args ...any) {
		l.settleAddress(NoEquivalent, format, args...)
		l.settleAll(NoEquivalent, "its listener is not taken over")
	}
	use := func(taken **listener, section, kind string) bool {
		if *taken != nil {
			leave("there is one %s listener, and that of %s is taken; an address without a host is for all of the machine: listeners.%s.address", kind, (*taken).where(), section)
			return false
		}
		*taken = l
		l.settleAddress(TakenOver, "listeners.%s", section)
		t.set("listeners."+section+".enabled", true, l.position())
		t.set("listeners."+section+".address", address, l.position())
		l.settle("protocol", TakenOver, "")
		return true
	}
	switch {
	case !ok && port == "0":
		leave("there are no unix sockets for MQTT: let the client use the plain listener on 127.0.0.1")
	case l.given["psk_hint"] != nil:
		leave("%s", pskNote)
	case !ok:
		leave("this is no port; Mosquitto refuses it too")
	case protocol != "mqtt" && protocol != "websockets":
		leave("protocol %q is not spoken", protocol)
	case protocol == "websockets" && secure:
		leave("websocket is served without encryption: keep it on 127.0.0.1 and let a web server that has the certificate pass it on")
	case protocol == "websockets":
		if use(&t.taken.websocket, "websocket", "websocket") {
			t.settleOrigins(l)
		}
	case secure:
		if use(&t.taken.tls, "tls", "TLS") {
			t.settleTLS(l)
		}
	default:
		use(&t.taken.plain, "tcp", "plain")
	}
	t.settleRest(l, secure)
}

// where says which listener this is.
func (l *listener) where() string {
	if at := l.position(); at != "" {
		return at
	}
	return "port 1883"
}

func (t *translator) settleOrigins(l *listener) {
	if d := l.given["websockets_origin"]; d != nil {
		t.set("listeners.websocket.allowed_origins", strings.Fields(d.value), d.Position())
		d.settle(TakenOver, "listeners.websocket.allowed_origins")
	}
}

func (t *translator) settleTLS(l *listener) {
	for option, key := range map[string]string{"cafile": "certs.ca_cert", "certfile": "certs.server_cert", "keyfile": "certs.server_key",
		"crlfile": "certs.crl"} {
		d := l.given[option]
		switch {
		case d == nil:
		case l.given["cafile"] == nil || l.given["keyfile"] == nil:
			d.settle(NoEquivalent, "PlantOps also needs the certificate of the authority that signed certfile: set certs.ca_cert, certs.server_cert and certs.server_key; until then it makes an authority of its own, which clients must trust")
		default:
			t.set(key, t.absolute(d.value), d.Position())
			kind := TakenOver
			if option == "crlfile" {
				kind = Differently
			}
			d.settle(kind, "%s%s", key, map[string]string{
				"cafile":   "; it must be the authority that signed certfile, and the one of the clients' certificates",
				"certfile": "; certificates from outside are not renewed",
				"keyfile":  "; it must belong to the user of the server and be readable by nobody else (chmod 600)",
				"crlfile":  "; Mosquitto lets nobody in while the list is out of date, here its entries stay in force and the others are let in",
			}[option])
		}
	}
	if d := l.given["require_certificate"]; d != nil {
		if yes, ok := d.yes(); ok && yes {
			t.set("listeners.tls.require_certificate", true, d.Position())
			d.settle(Differently, "listeners.tls.require_certificate; the name in the certificate (CN) must be the user name, and the password is asked for as well")
		} else if ok {
			d.settle(TakenOver, "")
		}
	}
	if d := l.given["tls_version"]; d != nil {
		switch d.word() {
		case "tlsv1.2":
			d.settle(TakenOver, "")
		default:
			d.settle(Differently, "TLS 1.2 and 1.3 are accepted, and nothing older")
		}
	}
}

// settleRest judges what means the same on every listener.
func (t *translator) settleRest(l *listener, secure bool) {
	for _, option := range []string{"use_identity_as_username", "use_subject_as_username"} {
		if d := l.given[option]; d != nil && d.Kind == 0 {
			if yes, ok := d.yes(); ok && yes {
				d.settle(NoEquivalent, `a certificate does not replace the login: let the clients send the name of their certificate (CN) as user name and a password, and make the account with "plantops user add"`)
			} else if ok {
				d.settle(TakenOver, "")
			}
		}
	}
	l.settle("capath", NoEquivalent, "one file is read, not a folder: put the certificates into one file and set certs.ca_cert")
	l.settle("socket_domain", Differently, "an address without a host is IPv4 and IPv6; give the listener an address of one kind instead")
	l.settle("bind_interface", NoEquivalent, "give the listener an address of that interface")
	l.settle("websockets_origin", NoEquivalent, "its listener is not one for websocket")
	if d := l.given["max_connections"]; d != nil && d.Kind == 0 {
		if n, ok := d.number(); ok && n < 0 {
			d.settle(Differently, "limits.max_connections is for all listeners and cannot be unlimited; the default stays")
		}
	}
	if !secure {
		l.settleTLSWithoutCertificate()
	}
}

// settleTLSWithoutCertificate judges options of TLS on a listener that has no certificate: Mosquitto ignores them too.
func (l *listener) settleTLSWithoutCertificate() {
	for _, option := range []string{"cafile", "keyfile", "crlfile", "require_certificate", "tls_version"} {
		l.settle(option, Differently, "its listener has no certfile, so it means nothing")
	}
}

// completeTaken disables the listeners that Mosquitto does not have, and sees to it that the subscriber has one.
func (t *translator) completeTaken() {
	if t.taken.plain == nil && t.taken.tls == nil {
		t.imply("(no plain listener)", Differently, "the subscriber of this program connects like a client: listeners.tcp is opened on 127.0.0.1")
		t.set("listeners.tcp.enabled", true, "")
		t.set("listeners.tcp.address", "127.0.0.1:1883", "")
	} else if t.taken.plain == nil {
		t.set("listeners.tcp.enabled", false, "")
	}
	if t.taken.tls == nil {
		t.set("listeners.tls.enabled", false, "")
	}
	if t.taken.websocket == nil {
		t.set("listeners.websocket.enabled", false, "")
	}
	used := t.taken.plain
	if used == nil && t.taken.tls != nil {
		used = t.taken.tls
		t.set("mqtt.use_tls", true, "")
		if _, outside := t.settings["certs.server_cert"]; outside {
			t.imply("(no plain listener)", Differently, "the subscriber of this program connects like a client, here over TLS: certfile must be for localhost, or set mqtt.host to a name that it is for")
		}
	}
	if used == nil {
		return
	}
	// The subscriber calls localhost unless the listener is bound to another address.
	host, _, _ := used.address()
	if ip := net.ParseIP(host); host != "" && host != "localhost" && (ip == nil || !ip.IsUnspecified() && !ip.IsLoopback()) {
		t.set("mqtt.host", host, used.position())
	}
}
