package source

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/ingest/payload"
)

// Presets are the programs that are known.
func Presets() []string { return slices.Sorted(maps.Keys(presets)) }

// preset is what a program sends.
type preset struct {
	base  string // what its topics begin with unless it is told otherwise
	rules []rule // patterns without the base
	// What the account of a device, or of a gateway with that name, needs: {device} is the name, a slash in front means that the
	// base does not count. It has what the program publishes beside readings, because who is refused that is disconnected.
	publish, subscribe []string
}

func of(kind Kind, topic string, read *payload.Rules) rule {
	return rule{kind: kind, pattern: parse(topic), read: read}
}

func ignored(topics ...string) (rules []rule) {
	for _, t := range topics {
		rules = append(rules, of(Ignored, t, nil))
	}
	return rules
}

func without(paths ...string) map[string]bool {
	set := make(map[string]bool, len(paths))
	for _, p := range paths {
		set[p] = true
	}
	return set
}

// path splits a path at its dots.
func path(text string) []string { return strings.Split(text, ".") }

// shellyNoise is what a Shelly says of itself beside what it measures.
var shellyNoise = without("*.id", "*.by_minute", "*.minute_ts", "*.source", "*.tag", "*.errors", "*.unixtime", "*.last_sync_ts",
	"sys", "ble", "cloud", "mqtt", "ws", "bthome", "events", "wifi.sta_ip", "wifi.status", "wifi.ssid", "wifi.sta_ip6",
	"*.temperature_status", "*.event", "*.last_event", "*.pf_sign")

var presets = map[string]preset{
	// https://tasmota.github.io/docs/MQTT/, https://tasmota.github.io/docs/JSON-Status-Responses/
	"tasmota": {publish: []string{"tele/{device}/#", "stat/{device}/#", "/tasmota/discovery/#"},
		subscribe: []string{"cmnd/{device}/#", "cmnd/tasmotas/#"}, rules: tasmota()},
	// https://shelly-api-docs.shelly.cloud/gen1/#mqtt-support, …/gen2/ComponentsAndServices/Mqtt
	"shelly": {publish: []string{"shellies/{device}/#", "shellies/announce", "{device}/#"},
		subscribe: []string{"shellies/{device}/#", "shellies/command", "{device}/#"}, rules: shelly()},
	// https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html
	"zigbee2mqtt": {publish: []string{"#", "/homeassistant/#"},
		subscribe: []string{"#", "/homeassistant/status"}, base: "zigbee2mqtt", rules: append(
			ignored("bridge/#", "{device+}/set", "{device+}/get", "+/set/#", "+/get/#"),
			of(Availability, "{device+}/availability", nil),
			rule{kind: Reading, pattern: parse("{device+}"), attributes: true, read: &payload.Rules{Words: true, Local: true, Sparse: true,
				Times: [][]string{{"last_seen"}}, Ignore: without("last_seen", "update", "device", "elapsed", "*.last_seen")}})},
	// https://esphome.io/components/mqtt.html
	"esphome": {publish: []string{"{device}/#", "/homeassistant/+/{device}/#"},
		subscribe: []string{"{device}/#"}, rules: esphome()},
	// https://docs.openmqttgateway.com/
	"openmqttgateway": {publish: []string{"{device}/#", "home_presence/{device}", "/homeassistant/#"},
		subscribe: []string{"{device}/commands/#"}, base: "home", rules: openMQTTGateway()},
	// https://triq.org/rtl_433/OPERATION.html#mqtt-output
	"rtl_433": {publish: []string{"{device}/#"},
		subscribe: []string{}, base: "rtl_433", rules: rtl433()},
	// https://www.chirpstack.io/docs/chirpstack/integrations/mqtt.html; v3: …/application-server/integrations/events/
	"chirpstack": {publish: []string{"#"},
		subscribe: []string{"+/device/+/command/#"}, base: "application", rules: chirpstack()},
	// https://www.thethingsindustries.com/docs/integrations/mqtt/
	"ttn": {publish: []string{"#"},
		subscribe: []string{"+/devices/+/down/#"}, base: "v3", rules: []rule{{kind: Reading, pattern: parse("+/devices/{device}/up"), read: &payload.Rules{Sparse: true, Words: true,
			Values: [][]string{path("uplink_message.decoded_payload")},
			Times:  [][]string{path("uplink_message.received_at"), path("received_at")},
			Also: []payload.Also{{Path: path("uplink_message.rx_metadata.0.rssi"), Metric: "rssi"},
				{Path: path("uplink_message.rx_metadata.0.snr"), Metric: "snr"}}},
			device: [][]string{path("end_device_ids.application_ids.application_id"), path("end_device_ids.device_id")},
			shown:  [][]string{path("end_device_ids.device_id")}}}},
	// https://homieiot.github.io/specification/
	"homie": {publish: []string{"{device}/#", "5/{device}/#"},
		subscribe: []string{"{device}/+/+/set", "5/{device}/+/+/set", "$broadcast/#", "5/$broadcast/#"}, base: "homie", rules: homie()},
}

func tasmota() []rule {
	read := &payload.Rules{Words: true, Local: true, Sparse: true, Ignore: without("*.TempUnit", "*.PressureUnit", "*.SpeedUnit",
		"*.Id", "*.Uptime", "*.SleepMode", "*.SSId", "*.BSSId", "*.Downtime", "*.Mode", "*.TotalStartTime", "*.Device", "*.Name",
		"*.Color", "*.HSBColor")}
	return []rule{of(Reading, "tele/{device}/SENSOR", read), of(Reading, "tele/{device}/STATE", read),
		of(Availability, "tele/{device}/LWT", nil)}
}

func shelly() []rule {
	plain := &payload.Rules{Words: true, Local: true, Sparse: true, Ignore: shellyNoise}
	first := append(ignored("shellies/announce", "shellies/command", "shellies/+/announce", "shellies/+/info", "shellies/+/command",
		"shellies/+/+/+/command", "shellies/+/+/+/set"),
		of(Availability, "shellies/{device}/online", nil),
		of(Reading, "shellies/{device}/sensor/{metric+}", plain),
		of(Reading, "shellies/{device}/{metric+}", plain))
	calls := &payload.Rules{Words: true, Sparse: true, Ignore: shellyNoise, Values: [][]string{{"params"}}}
	return append(first,
		of(Availability, "{device}/online", nil),
		of(Reading, "{device}/status/{metric}", plain),
		of(Reading, "{device}/events/rpc", calls))
}

func esphome() []rule {
	read := &payload.Rules{Words: true, Local: true, Sparse: true}
	rules := []rule{of(Availability, "{device}/status", nil)}
	for _, component := range []string{"sensor", "binary_sensor", "switch", "number"} {
		rules = append(rules, of(Reading, "{device}/"+component+"/{metric}/state", read))
	}
	return append(rules, of(Reading, "{device}/climate/{metric}/{metric}/state", read))
}

func openMQTTGateway() []rule {
	read := &payload.Rules{Words: true, Local: true, Sparse: true, Ignore: without("id", "name", "brand", "model", "model_id", "type",
		"mac", "mac_type", "adv_type", "servicedata", "servicedatauuid", "manufacturerdata", "version", "env", "ip", "ssid", "modules",
		"time", "protocol", "raw", "mic", "mod", "freq", "cidc", "acts", "cont", "track", "prmac")}
	return append(ignored("+/commands/#", "+/version"),
		of(Availability, "{device}/LWT", nil),
		of(Reading, "{device}/CLIMAtoMQTT/{metric+}", read),
		of(Reading, "{device}/SYStoMQTT", read),
		of(Reading, "{device}/*toMQTT", read),
		of(Reading, "+/+toMQTT/{device+}", read), of(Ignored, "#", nil))
}

func rtl433() []rule {
	read := &payload.Rules{Local: true, Words: true, Sparse: true, Ignore: without("time", "model", "type", "subtype", "id", "channel",
		"mic", "mod", "freq", "freq1", "freq2", "protocol")}
	events := of(Reading, "+/events", read)
	for _, key := range []string{"type", "model", "subtype", "channel", "id"} { // in the order of the other topic
		events.device = append(events.device, []string{key})
	}
	return append(ignored("+/states", "+/stats"), events,
		of(Availability, "{device}/availability", nil),
		of(Reading, "+/devices/{device+}/{metric}", read), of(Ignored, "#", nil))
}

func chirpstack() []rule {
	names := [][]string{path("deviceInfo.deviceName"), {"deviceName"}} // of v4 and v3
	up := rule{kind: Reading, pattern: parse("+/device/{device}/event/up"), read: &payload.Rules{Sparse: true, Words: true,
		Values: [][]string{{"object"}, {"objectJSON"}},
		Times:  [][]string{{"time"}, path("rxInfo.0.time"), {"publishedAt"}},
		Also: []payload.Also{{Path: path("rxInfo.0.rssi"), Metric: "rssi"}, {Path: path("rxInfo.0.snr"), Metric: "snr"},
			{Path: path("rxInfo.0.loRaSNR"), Metric: "snr"}}},
		shown: names}
	status := rule{kind: Reading, pattern: parse("+/device/{device}/event/status"), read: &payload.Rules{Sparse: true,
		Ignore: without("deviceInfo", "deduplicationId", "applicationID", "applicationName", "deviceName", "devEUI", "tags", "publishedAt")},
		shown: names}
	return append([]rule{up, status}, ignored("#")...)
}

func homie() []rule {
	read := &payload.Rules{Words: true, Local: true, Sparse: true}
	return append([]rule{of(Availability, "5/{device}/$state", nil), of(Availability, "{device}/$state", nil),
		of(Availability, "{device}/$online", nil)},
		append(ignored("$broadcast/#", "5/$broadcast/#", "5/+/$description", "5/+/$log/#", "5/+/$alert/#", "+/$stats/#", "+/$fw/#", "+/$implementation/#",
			"5/+/+", "+/+/+/set"),
			of(Reading, "5/{device}/{metric}/{metric}", read),
			of(Reading, "{device}/{metric}/{metric}", read), of(Ignored, "#", nil))...)
}

var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,23}$`)

// compile makes the rules of one source.
func compile(c Config, name string) ([]rule, error) {
	if !goodName.MatchString(name) {
		return nil, errors.New("needs a name of 1 to 24 of a-z, 0-9, _ and -")
	}
	fields, err := compileFields(c.Fields)
	if err != nil {
		return nil, err
	}
	if c.Preset == "" {
		return compileOwn(c, name, fields)
	}
	p, known := presets[c.Preset]
	switch {
	case !known:
		return nil, fmt.Errorf("there is no preset %q; there are %s", c.Preset, strings.Join(Presets(), ", "))
	case c.Topic != "" || c.Availability != "" || c.Device != "" || c.Value != "" || c.Time != "":
		return nil, errors.New("a preset knows its topics and payloads: leave out topic, availability, device, value and time, or leave out preset")
	}
	base := p.base
	if c.Base != "" {
		base = c.Base
	}
	var front pattern
	if base != "" {
		if front, err = parseOwn(base); err != nil || strings.ContainsAny(base, "+#{}") {
			return nil, errors.New("base must be levels of topics without wildcards, such as house/zigbee")
		}
	}
	rules := make([]rule, len(p.rules))
	for i, r := range p.rules {
		r.source, r.pattern = name, slices.Concat(front, r.pattern)
		if r.read != nil && fields != nil {
			read := *r.read
			read.Fields, r.read = fields, &read
		}
		rules[i] = r
	}
	return rules, nil
}

// compileOwn makes the rules of a source that a person described.
func compileOwn(c Config, name string, fields map[string]payload.Field) ([]rule, error) {
	switch {
	case c.Topic == "":
		return nil, errors.New("needs a preset, or a topic such as farm/{device}/{metric}")
	case c.Base != "":
		return nil, errors.New("base belongs to a preset: write the whole topic")
	}
	p, err := parseOwn(c.Topic)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", c.Topic, err)
	}
	if p.has("{device}") == (c.Device != "") {
		return nil, fmt.Errorf("topic %s: the name of the device must be in it, as {device}, or in the payload, at the path in device; one of the two", c.Topic)
	}
	read := rule{source: name, kind: Reading, pattern: p, read: &payload.Rules{Fields: fields, Ignore: map[string]bool{}}}
	for _, at := range []struct {
		key, text string
		to        *[][]string
	}{{"device", c.Device, &read.device}, {"value", c.Value, &read.read.Values}, {"time", c.Time, &read.read.Times}} {
		if at.text == "" {
			continue
		}
		if slices.Contains(path(at.text), "") {
			return nil, fmt.Errorf("%s %s: must be a path such as data.temperature or list.0.value", at.key, at.text)
		}
		*at.to = [][]string{path(at.text)}
		if inside, is := strings.CutPrefix(at.text, c.Value+"."); at.key != "value" && (c.Value == "" || is) {
			if c.Value == "" {
				inside = at.text
			}
			read.read.Ignore[inside] = true // it is no reading
		}
	}
	if c.Availability == "" {
		return []rule{read}, nil
	}
	online, err := parseOwn(c.Availability)
	if err == nil && (!online.has("{device}") || online.has("{metric}")) {
		err = errors.New("must have {device} in it, and no {metric}")
	}
	if err != nil {
		return nil, fmt.Errorf("availability %s: %w", c.Availability, err)
	}
	return []rule{{source: name, kind: Availability, pattern: online}, read}, nil
}

// grant is what accounts of a source need; {device} stands for their names.
func grant(c Config, rules []rule) (g Grant) {
	p, known := presets[c.Preset]
	if !known {
		for _, r := range rules {
			filter := r.pattern
			if at := slices.Index(filter, "{device}"); at >= 0 {
				g.Publish = append(g.Publish, strings.ReplaceAll(strings.Join(filter, "/"), "{metric}", "+"))
				continue
			}
			g.Publish = append(g.Publish, filter.filter())
		}
		return g
	}
	base := p.base
	if c.Base != "" {
		base = c.Base
	}
	for _, list := range []struct {
		from []string
		to   *[]string
	}{{p.publish, &g.Publish}, {p.subscribe, &g.Subscribe}} {
		for _, filter := range list.from {
			if outside, is := strings.CutPrefix(filter, "/"); is {
				filter = outside
			} else if base != "" {
				filter = base + "/" + filter
			}
			*list.to = append(*list.to, filter)
		}
	}
	return g
}

// Grants returns what the account of a device of a source needs, or of a gateway: to publish what is read and what else its
// program sends, and to get what it is told. The error says that there is no such source, or that the device's name would
// open the topics of others.
func (s *Set) Grants(source, device string) (Grant, error) {
	var g Grant
	known := false
	if s != nil {
		g, known = s.grants[source]
	}
	if !known {
		return Grant{}, fmt.Errorf("there is no source %q in ingest.sources", source)
	}
	named := func(filters []string) ([]string, error) {
		out := make([]string, len(filters))
		for i, filter := range filters {
			out[i] = strings.ReplaceAll(filter, "{device}", device)
			if topic.Overlap(out[i], "devices/#") {
				return nil, fmt.Errorf("a device of source %s cannot be called %q: %s would be its topics", source, device, out[i])
			}
		}
		return out, nil
	}
	publish, err := named(g.Publish)
	if err != nil {
		return Grant{}, err
	}
	subscribe, err := named(g.Subscribe)
	return Grant{Publish: publish, Subscribe: subscribe}, err
}

func compileFields(list []Field) (map[string]payload.Field, error) {
	if len(list) == 0 {
		return nil, nil
	}
	fields := make(map[string]payload.Field, len(list))
	for _, f := range list {
		to := payload.Field{Metric: f.To, Scale: f.Scale, Offset: f.Offset}
		if to.Scale == 0 {
			to.Scale = 1
		}
		if f.Unit != "" {
			u, known := units[f.Unit]
			switch {
			case !known:
				return nil, fmt.Errorf("field %s: no such unit %q; there are %s, anything else is scale and offset", f.From, f.Unit, strings.Join(Units(), ", "))
			case f.Scale != 0 || f.Offset != 0:
				return nil, fmt.Errorf("field %s: unit stands for scale and offset: leave these out", f.From)
			}
			to.Scale, to.Offset = u.scale, u.offset
		}
		_, twice := fields[f.From]
		switch {
		case f.From == "":
			return nil, errors.New("a field needs from, its path in the payload")
		case twice:
			return nil, fmt.Errorf("field %s: is there twice", f.From)
		case math.IsNaN(to.Scale+to.Offset) || math.IsInf(to.Scale, 0) || math.IsInf(to.Offset, 0):
			return nil, fmt.Errorf("field %s: scale and offset must be finite numbers", f.From)
		case !utf8.ValidString(f.To) || len(f.To) > maxIDBytes || strings.ContainsFunc(f.To, unicode.IsControl):
			return nil, fmt.Errorf("field %s: to must be a metric's name, of at most 64 bytes", f.From)
		}
		fields[f.From] = to
	}
	return fields, nil
}
