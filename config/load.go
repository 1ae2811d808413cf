package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// Value is one effective setting, for "config show".
type Value struct {
	Key    string
	Value  string // as a person would write it; a secret that is set is "<redacted>"
	Source string // "default", "plantops.yaml:14", "MQTT_PORT", "flag --log-level"
}

// Loaded is a valid configuration and where it came from.
type Loaded struct {
	Config   Config
	Path     string   // the file that was read; "" when there was none
	Values   []Value  // every setting, in the order of Keys
	Warnings []string // odd, but not wrong; for the log
	// NotSearched says that a default place for the file could not be looked into; "" when all could. Every command says it.
	NotSearched string

	lines map[string]string // of what stands below a key of the file, such as bridges[0].address
}

const fromDefault = "default"

// Load merges the defaults, the file, the environment ("NAME=value" strings)
// and the flags (key, such as "log.level", to text), each over the one before.
// A path of "" means ./plantops.yaml, else /etc/plantops/plantops.yaml, else no
// file; a path that is given must be there.
//
// The error joins every problem, one a line, and no line shows a secret.
func Load(path string, environ []string, flags map[string]string) (Loaded, error) {
	data, path, warning, err := readFile(path)
	if err != nil {
		return Loaded{}, err
	}
	file := parseFile(path, data)
	env := parseEnviron(environ)
	flag := parseFlags(flags)

	cfg, err := merge(file.values, env.values, flag.values)
	if err != nil {
		return Loaded{}, fmt.Errorf("merge configuration: %w", err)
	}
	loaded := Loaded{Config: cfg, Path: path, NotSearched: warning, Warnings: env.warnings, lines: file.sources}
	for _, s := range settings {
		loaded.Values = append(loaded.Values, Value{
			Key:    s.path,
			Value:  s.text(&cfg),
			Source: cmp.Or(flag.sources[s.path], env.sources[s.path], file.sources[s.path], fromDefault),
		})
	}
	if p := loaded.value(passwordKey); p.Value != "" && p.Source == file.sources[passwordKey] && readableByOthers(path) {
		loaded.Warnings = append(loaded.Warnings, fmt.Sprintf("%s holds %s and every user can read it; chmod 640 %s", path, passwordKey, path))
	}
	loaded.Warnings = append(loaded.Warnings, cfg.openDoors()...)
	loaded.Warnings = append(loaded.Warnings, cfg.oddBridges()...)
	inFile := func(b Bridge) bool { return b.Password != "" && b.PasswordFile == "" }
	if slices.ContainsFunc(cfg.Bridges, inFile) && readableByOthers(path) {
		loaded.Warnings = append(loaded.Warnings, fmt.Sprintf("%s holds the password of a bridge and every user can read it; "+
			"chmod 640 %s", path, path))
	}

	if cfg.Alerts.secretInFile() && readableByOthers(path) {
		loaded.Warnings = append(loaded.Warnings, fmt.Sprintf("%s holds secrets of alerts.channels and every user can read it; chmod 640 %s", path, path))
	}

	problems := slices.Concat(file.problems, env.problems, flag.problems)
	if err := join(append(problems, loaded.invalid(problems)...)); err != nil {
		return Loaded{}, err
	}
	return loaded, nil
}

// merge is where viper works: it puts the layers over each other and decodes
// the result into the struct. Every value comes with its final type, so that
// nothing is left to convert, and every field must be filled by exactly one
// setting. The file comes as parsed by parseFile: viper reading it by itself
// would have turned 0123 into 83 before anybody could object.
func merge(file, env, flags map[string]any) (Config, error) {
	v := viper.New()
	def := Default()
	for _, s := range settings {
		v.SetDefault(s.path, s.value(&def))
	}
	if err := v.MergeConfigMap(file); err != nil {
		return Config{}, err
	}
	for _, layer := range []map[string]any{env, flags} {
		for key, value := range layer {
			v.Set(key, value)
		}
	}
	var cfg Config
	err := v.UnmarshalExact(&cfg, func(d *mapstructure.DecoderConfig) {
		d.WeaklyTypedInput = false
		d.ErrorUnset = true
		d.DecodeHook = nil
	})
	cfg.Log.Level = canonical(cfg.Log.Level)
	cfg.Log.Format = canonical(cfg.Log.Format)
	return cfg, err
}

// canonical accepts the words of the old system, which wrote INFO, WARNING and
// console.
func canonical(word string) string {
	switch word = strings.ToLower(word); word {
	case "warning":
		return "warn"
	case "critical":
		return "error"
	case "console":
		return "text"
	}
	return word
}

// invalid returns what Validate objects to, with sources, and what only the
// sources show. A key that already has a problem is left alone: what would be
// judged is its default.
func (l Loaded) invalid(before []problem) []problem {
	found := l.Config.problems()
	tcp, tls := l.Config.Listeners.TCP, l.Config.Listeners.TLS
	found = append(found, l.portProblems(fixedPort(tcp.Enabled, tcp.Address), fixedPort(tls.Enabled, tls.Address))...)

	var problems []problem
	for _, p := range found {
		if slices.ContainsFunc(before, func(b problem) bool { return b.key == p.key || within(p.key, b.key) }) {
			continue
		}
		p.source = l.source(p.key)
		problems = append(problems, p)
	}
	return problems
}

// SubscriberPort returns the port at mqtt.host that ingest connects to. The
// arguments are the ports that the embedded broker bound, 0 for a listener that
// is off: a port that was not set follows them, and one that was set must not
// contradict them.
func (l Loaded) SubscriberPort(tcp, tls int) (int, error) {
	if err := join(l.portProblems(tcp, tls)); err != nil {
		return 0, err
	}
	bound, port := tcp, l.Config.MQTT.Port
	if l.Config.MQTT.UseTLS {
		bound, port = tls, l.Config.MQTT.TLSPort
	}
	if l.Config.Embedded() && bound != 0 {
		return bound, nil
	}
	return port, nil
}

// portProblems compares the ports that were set with those of the embedded
// broker; 0 on either side fits everything.
func (l Loaded) portProblems(tcp, tls int) []problem {
	var problems []problem
	check := func(key string, port, bound int, listener string) {
		source := l.value(key).Source
		follows := source == fromDefault || port < 1 || port > 65535 // out of range: Validate says so
		if !l.Config.Embedded() || follows || bound == 0 || port == bound {
			return
		}
		problems = append(problems, problem{key: key, value: fmt.Sprint(port), source: source,
			remedy: fmt.Sprintf("but %s listens on port %d; remove the setting, or change one of the two", listener, bound)})
	}
	check("mqtt.port", l.Config.MQTT.Port, tcp, "listeners.tcp")
	check("mqtt.tls_port", l.Config.MQTT.TLSPort, tls, "listeners.tls")
	return problems
}

// IsSet reports whether a setting comes from somewhere, and is not merely the default.
func (l Loaded) IsSet(key string) bool { return l.value(key).Source != fromDefault }

// source is where a setting, or what stands below one, comes from; what is not written stands where it is missing.
func (l Loaded) source(key string) string {
	for at := key; at != ""; at = at[:max(0, strings.LastIndexAny(at, ".["))] {
		if v := l.value(at); v.Key != "" {
			return v.Source
		}
		if line := l.lines[at]; line != "" {
			return line
		}
	}
	return ""
}

// within reports whether a key stands in one item of a list: bridges[0].address in bridges[0].
func within(key, item string) bool {
	return strings.HasSuffix(item, "]") && strings.HasPrefix(key, item+".")
}

// Problem returns an error in the form of those that Load returns, for what
// only the user of a setting can find out, such as a file that is missing:
// key, value, source, then the text, which says what would be accepted.
func (l Loaded) Problem(key, text string) error {
	v := l.value(key)
	if v.Key == "" {
		return problem{key: key, source: l.source(key), remedy: text}
	}
	return problem{key: key, value: shown(v.Value), source: v.Source, remedy: text}
}

// value returns the effective value of a key.
func (l Loaded) value(key string) Value {
	for _, v := range l.Values {
		if v.Key == key {
			return v
		}
	}
	return Value{}
}
