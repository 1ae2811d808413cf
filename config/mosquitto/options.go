package mosquitto

import (
	"path"
	"strings"
)

// option is what is known about a word that begins a line of mosquitto.conf.
type option struct {
	kind     Kind
	note     string
	take     func(*translator, *directive) // instead of kind and note
	listener bool                          // it belongs to a listener and is judged with it
	secret   bool                          // its value is not repeated
}

// own is an option of a listener.
func own() option { return option{listener: true} }

func differs(note string) option { return option{kind: Differently, note: note} }
func lacks(note string) option   { return option{kind: NoEquivalent, note: note} }

// either takes one verdict for true and another for false.
func either(whenTrue, whenFalse option) option {
	return option{take: func(_ *translator, d *directive) {
		o := whenFalse
		yes, ok := d.yes()
		if yes {
			o = whenTrue
		}
		if ok {
			d.settle(o.kind, "%s", o.note)
		}
	}}
}

var same = option{kind: TakenOver}

const (
	queueNote   = "what was acknowledged and waits for a client goes on on disk, up to limits.max_disk_messages_per_account and limits.max_disk_bytes_per_account; QoS 0 does not wait for who is away"
	flightNote  = "how many messages are under way at once cannot be set; an MQTT 5 client sets it for itself (Receive Maximum)"
	sessionNote = "sessions, their queues and retained messages are always on disk before they are acknowledged; Mosquitto's own stored sessions and retained messages are not copied: let their senders publish them again"
	logNote     = "lines go to standard error with their time, level and facts; under systemd: journalctl -u plantops"
	tlsNote     = "TLS 1.2 and later with the ciphers of the Go library, which cannot be chosen"
	pskNote     = "there is no TLS-PSK: give the clients passwords or certificates"
	proxyNote   = "let a proxy do it that connects to PlantOps as an ordinary client"
)

var options = table()

func table() map[string]option {
	known := map[string]option{
		"listener":              {take: (*translator).openListener},
		"port":                  {take: func(t *translator, d *directive) { t.first.set(d) }},
		"bind_address":          {take: func(t *translator, d *directive) { t.first.set(d) }},
		"per_listener_settings": {take: (*translator).setPerListener},
		"allow_anonymous":       {take: func(t *translator, d *directive) { s := t.secured(); s.anonymous = latest(s.anonymous, d) }},
		"password_file":         {take: func(t *translator, d *directive) { s := t.secured(); s.passwordFile = latest(s.passwordFile, d) }},
		"acl_file":              {take: func(t *translator, d *directive) { s := t.secured(); s.aclFile = latest(s.aclFile, d) }},
		"max_packet_size":       {take: func(t *translator, d *directive) { t.maxPacket = latest(t.maxPacket, d) }},
		"message_size_limit":    {take: func(t *translator, d *directive) { t.maxMessage = latest(t.maxMessage, d) }},
		"log_type":              {take: func(t *translator, d *directive) { t.logTypes = append(t.logTypes, d) }},
		"include_dir":           {take: func(*translator, *directive) {}}, // it can fail, so its reader is called apart

		"global_max_connections": {take: func(t *translator, d *directive) { t.maxConnections = latest(t.maxConnections, d) }},
		"global_max_clients":     lacks("sessions of clients that are away are bounded by number and size; see limits.max_connections for the others"),

		"plugin":                   {take: func(t *translator, d *directive) { t.usePlugin(d, t.secured()) }},
		"auth_plugin":              {take: func(t *translator, d *directive) { t.usePlugin(d, t.secured()) }},
		"global_plugin":            {take: func(t *translator, d *directive) { t.usePlugin(d, t.global) }},
		"plugin_load":              {take: func(t *translator, d *directive) { t.usePlugin(d, t.secured()) }},
		"plugin_use":               differs("accounts and their rules hold on every listener here"),
		"plugin_opt_password_file": {take: func(t *translator, d *directive) { s := t.plugged(); s.passwordFile = latest(s.passwordFile, d) }},
		"plugin_opt_acl_file":      {take: func(t *translator, d *directive) { s := t.plugged(); s.aclFile = latest(s.aclFile, d) }},

		"persistence":                  either(differs(sessionNote), differs("readings are always stored; there is no running without a database")),
		"persistence_location":         differs("the database is in data_dir; store.path names another file"),
		"persistence_file":             differs("the database is in data_dir; store.path names another file"),
		"autosave_interval":            differs("readings are saved at once, before they are acknowledged"),
		"autosave_on_changes":          differs("readings are saved at once, before they are acknowledged"),
		"retained_persistence":         differs(sessionNote),
		"persistent_client_expiration": lacks("MQTT 5 clients say themselves how long their session is kept"),
		"retain_expiry_interval":       lacks("senders can give a message an expiry of its own (MQTT 5)"),

		"log_dest": {take: func(_ *translator, d *directive) {
			switch d.word() {
			case "none", "topic":
				d.settle(NoEquivalent, "%s", logNote)
			default:
				d.settle(Differently, "%s", logNote)
			}
		}},
		"log_timestamp":        differs(logNote),
		"log_timestamp_format": differs("times are in RFC 3339; under systemd journalctl -o chooses"),
		"log_facility":         lacks(logNote),
		"connection_messages":  differs("who comes and goes is in the log at log.level debug; how many, in plantops status"),
		"websockets_log_level": lacks("the log has one level: log.level"),

		"allow_zero_length_clientid":     either(same, lacks("clients without an id are given one")),
		"auto_id_prefix":                 lacks("clients without an id are given a random one"),
		"clientid_prefixes":              lacks("who may connect is decided by account, not by client id"),
		"auth_plugin_deny_special_chars": either(same, lacks("names with + # / $ % are always refused")),
		"check_retain_source":            lacks("who reads is asked at each delivery; who published a retained message is not asked again"),
		"allow_duplicate_messages":       either(lacks("a client with overlapping subscriptions gets a message once"), same),
		"queue_qos0_messages":            lacks(queueNote),
		"max_queued_messages":            lacks(queueNote),
		"max_queued_bytes":               lacks(queueNote),
		"max_inflight_messages":          lacks(flightNote),
		"max_inflight_bytes":             lacks(flightNote),
		"max_keepalive":                  lacks("clients choose their keepalive; an MQTT 5 client without one is given 300 s"),
		"memory_limit":                   lacks("memory is bounded by limits.* and by GOMEMLIMIT, see docs/settings.md"),
		"upgrade_outgoing_qos":           either(lacks("a message is delivered at the lower of both qualities, as MQTT has it"), same),
		"retain_available":               either(same, lacks("retained messages are always possible")),
		"retry_interval":                 differs("messages are sent again when the connection is made anew, as MQTT has it"),
		"set_tcp_nodelay":                either(same, lacks("always on")),
		"sys_interval":                   lacks("$SYS is for administrators, at an interval of its own"),
		"packet_buffer_size":             lacks("buffers are sized by the program"),
		"enable_control_api":             lacks(`accounts are managed with "plantops device" and "plantops user", live`),

		"connection": {take: (*translator).openBridge},
		"pid_file":   differs("the process id is in plantops.lock in data_dir"),
		"user":       differs("the user is that of the service: User= in plantops.service"),

		// Of one listener.
		"protocol": own(), "socket_domain": own(), "bind_interface": own(), "max_connections": own(),
		"cafile": own(), "capath": own(), "certfile": own(), "keyfile": own(), "crlfile": own(),
		"require_certificate": own(), "use_identity_as_username": own(), "use_subject_as_username": own(),
		"tls_version": own(), "websockets_origin": own(), "psk_hint": own(),

		"mount_point":                     lacks("topics are the same on every listener: change them in the clients"),
		"use_username_as_clientid":        lacks("a client id that is the name of an account can be used by that account alone, which is what it is mostly for"),
		"accept_protocol_versions":        lacks("MQTT 3.1, 3.1.1 and 5 are always spoken"),
		"max_qos":                         lacks("QoS 0, 1 and 2 are always possible"),
		"maximum_qos":                     lacks("QoS 0, 1 and 2 are always possible"),
		"max_topic_alias":                 lacks("topic aliases are not offered"),
		"max_topic_alias_broker":          lacks("topic aliases are not offered"),
		"psk_file":                        lacks(pskNote),
		"ciphers":                         lacks(tlsNote),
		"ciphers_tls1.3":                  lacks(tlsNote),
		"dhparamfile":                     lacks(tlsNote),
		"tls_engine":                      lacks("keys are read from files"),
		"tls_keyform":                     lacks("keys are read from files"),
		"tls_engine_kpass_sha1":           {kind: NoEquivalent, note: "keys are read from files", secret: true},
		"disable_client_cert_date_checks": lacks("expired certificates are refused"),
		"http_dir":                        lacks("there is no file server: " + proxyNote),
		"websockets_headers_size":         lacks("headers are bounded by the program"),
		"enable_proxy_protocol":           lacks("there is no PROXY protocol: " + proxyNote),
		"proxy_protocol_v2_require_tls":   lacks("there is no PROXY protocol: " + proxyNote),
	}
	for _, name := range strings.Fields(`address addresses topic bridge_alpn bridge_attempt_unsubscribe
		bridge_bind_address bridge_cafile bridge_capath bridge_certfile bridge_ciphers bridge_ciphers_tls1.3 bridge_identity
		bridge_insecure bridge_keyfile bridge_max_packet_size bridge_max_topic_alias bridge_outgoing_retain
		bridge_protocol_version bridge_receive_maximum bridge_reload_type bridge_require_ocsp bridge_session_expiry_interval
		bridge_tcp_keepalive bridge_tcp_user_timeout bridge_tls_use_os_certs bridge_tls_version cleansession clientid
		idle_timeout keepalive_interval local_cleansession local_clientid local_username notification_topic notifications
		notifications_local_only remote_clientid remote_username restart_timeout round_robin start_type threshold
		try_private username`) {
		known[name] = bridged()
	}
	for _, name := range strings.Fields("password remote_password local_password bridge_psk") {
		o := bridged()
		o.secret = true
		known[name] = o
	}
	return known
}

// usePlugin judges a plugin by the name of its file: two of Mosquitto 2.1 do what password_file and acl_file did.
func (t *translator) usePlugin(d *directive, s *security) {
	t.plugin = s
	switch name := path.Base(d.value); {
	case strings.Contains(name, "password_file"), strings.Contains(name, "acl_file"):
		d.settle(TakenOver, "")
	case strings.Contains(name, "dynamic_security"):
		d.settle(NoEquivalent, `the clients and roles of the dynamic security plugin are not read: make an account for each with "plantops user add"`)
	default:
		d.settle(NoEquivalent, "there are no plugins")
	}
}

// plugged is what the options of the plugin are about.
func (t *translator) plugged() *security {
	if t.plugin == nil {
		return t.secured()
	}
	return t.plugin
}
