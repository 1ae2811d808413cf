package snippet

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// These judge the syntax of the forms. deploy/interop runs what can be run: python, mosquitto, nodered, micropython under
// CPython, and the compiler over the sketch.

// lexer walks through a text of one language and returns it without what stands in strings and comments.
type lexer struct {
	comments []string          // what begins one that ends with the line
	quotes   map[string]string // what begins a string, and what ends it; longest first by order
	order    []string
	raw      map[string]bool // without backslashes
}

// code returns the text with strings as "" and no comments. An open string is an error.
func (l lexer) code(text string) (string, error) {
	var out strings.Builder
next:
	for i := 0; i < len(text); {
		for _, c := range l.comments {
			if strings.HasPrefix(text[i:], c) {
				end := strings.IndexByte(text[i:], '\n')
				if end < 0 {
					return out.String(), nil
				}
				i += end
				continue next
			}
		}
		for _, begin := range l.order {
			if !strings.HasPrefix(text[i:], begin) {
				continue
			}
			end, err := l.end(text, i+len(begin), begin)
			if err != nil {
				return "", err
			}
			out.WriteString(`""`)
			i = end
			continue next
		}
		out.WriteByte(text[i])
		i++
	}
	return out.String(), nil
}

func (l lexer) end(text string, from int, begin string) (int, error) {
	end := l.quotes[begin]
	for i := from; i < len(text); i++ {
		switch {
		case !l.raw[begin] && text[i] == '\\':
			i++
		case strings.HasPrefix(text[i:], end):
			return i + len(end), nil
		case text[i] == '\n' && len(end) == 1 && !l.raw[begin]:
			return 0, fmt.Errorf("a string that begins with %s is open at the end of the line: %.60q", begin, text[from:])
		}
	}
	return 0, fmt.Errorf("a string that begins with %s is open: %.60q", begin, text[from:])
}

// balanced fails unless every bracket is closed by its own kind.
func balanced(t *testing.T, code string) {
	t.Helper()
	closing := map[rune]rune{')': '(', ']': '[', '}': '{'}
	var open []rune
	for _, r := range code {
		switch r {
		case '(', '[', '{':
			open = append(open, r)
		case ')', ']', '}':
			require.NotEmpty(t, open, "%c closes nothing in:\n%s", r, code)
			require.Equal(t, string(closing[r]), string(open[len(open)-1]), "brackets in:\n%s", code)
			open = open[:len(open)-1]
		}
	}
	require.Empty(t, open, "brackets that stay open in:\n%s", code)
}

func checkArduino(t *testing.T, _ Facts, text string) {
	l := lexer{comments: []string{"//"}, order: []string{`R"EOF(`, `"`, `'`}, raw: map[string]bool{`R"EOF(`: true},
		quotes: map[string]string{`R"EOF(`: `)EOF"`, `"`: `"`, `'`: `'`}}
	code, err := l.code(text)
	require.NoError(t, err)
	balanced(t, code)
	for n, line := range strings.Split(code, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		assert.Regexp(t, `[;{}]$`, line, "line %d ends a statement", n+1)
	}
	for _, function := range []string{"void setup() {", "void loop() {", "plantOps.begin(config);", "plantOps.add(reading);"} {
		assert.Contains(t, code, function)
	}
}

func checkPython(t *testing.T, _ Facts, text string) {
	l := lexer{comments: []string{"#"}, order: []string{`"""`, `"`, `'`}, quotes: map[string]string{`"""`: `"""`, `"`: `"`, `'`: `'`}}
	code, err := l.code(text)
	require.NoError(t, err)
	balanced(t, code)
	assert.NotContains(t, code, "\t")
	opened := regexp.MustCompile(`^(def|class|if|elif|else|for|while|try|except|with)\b`)
	depth, before, opens := 0, 0, false
	for n, line := range strings.Split(code, "\n") {
		stripped := strings.TrimSpace(line)
		if stripped == "" {
			continue
		}
		indentation := len(line) - len(strings.TrimLeft(line, " "))
		if depth == 0 { // not within brackets
			assert.Zero(t, indentation%4, "line %d", n+1)
			if opens {
				assert.Equal(t, before+4, indentation, "line %d is the body of the line before", n+1)
			} else {
				assert.LessOrEqual(t, indentation, before, "line %d", n+1)
			}
			before, opens = indentation, opened.MatchString(stripped) && strings.HasSuffix(stripped, ":")
			if opened.MatchString(stripped) {
				assert.True(t, strings.HasSuffix(stripped, ":"), "line %d: %s", n+1, stripped)
			}
		}
		depth += strings.Count(stripped, "(") + strings.Count(stripped, "{") - strings.Count(stripped, ")") - strings.Count(stripped, "}")
	}
	assert.Contains(t, code, "qos=1")
}

func checkShell(t *testing.T, f Facts, text string) {
	assert.True(t, strings.HasPrefix(text, "#!/bin/sh\n"))
	if f.TLS() {
		before, rest, found := strings.Cut(text, "<<'END_OF_CA'\n")
		require.True(t, found)
		ca, after, found := strings.Cut(rest, "END_OF_CA\n")
		require.True(t, found, "the here-document ends")
		assert.Equal(t, f.CA, ca)
		text = before + after
	}
	l := lexer{comments: []string{"#"}, order: []string{`'`, `"`}, quotes: map[string]string{`'`: `'`, `"`: `"`}, raw: map[string]bool{`'`: true}}
	code, err := l.code(strings.ReplaceAll(text, `\'`, ""))
	require.NoError(t, err)
	balanced(t, code)
	assert.Contains(t, code, "-q 1 \\\n")
	command := code[strings.Index(code, "mosquitto_pub -h"):]
	assert.Equal(t, strings.Count(strings.TrimSpace(command), "\n"), strings.Count(command, "\\\n"), "the command is one")
}

func checkESPHome(t *testing.T, f Facts, text string) {
	var config struct {
		ESPHome struct {
			Name     string `yaml:"name"`
			Friendly string `yaml:"friendly_name"`
		} `yaml:"esphome"`
		ESP32 map[string]any   `yaml:"esp32"`
		OTA   []map[string]any `yaml:"ota"`
		WiFi  map[string]any   `yaml:"wifi"`
		Log   any              `yaml:"logger"`
		Time  []map[string]any `yaml:"time"`
		MQTT  struct {
			ID        string  `yaml:"id"`
			Broker    string  `yaml:"broker"`
			Port      int     `yaml:"port"`
			ClientID  string  `yaml:"client_id"`
			Username  string  `yaml:"username"`
			Password  string  `yaml:"password"`
			CA        string  `yaml:"certificate_authority"`
			Prefix    *string `yaml:"topic_prefix"`
			Discovery bool    `yaml:"discovery"`
			LogTopic  *string `yaml:"log_topic"`
			Reboot    string  `yaml:"reboot_timeout"`
		} `yaml:"mqtt"`
		Sensor   []map[string]any `yaml:"sensor"`
		Interval []struct {
			Interval string `yaml:"interval"`
			Then     []map[string]struct {
				Topic   string `yaml:"topic"`
				QoS     int    `yaml:"qos"`
				Payload string `yaml:"payload"`
			} `yaml:"then"`
		} `yaml:"interval"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true) // as ESPHome does: a mistyped key is an error
	require.NoError(t, decoder.Decode(&config), "%s", text)
	m := config.MQTT
	assert.Equal(t, []any{f.Host, f.Port, f.Device, f.Device, f.Password, f.CA}, []any{m.Broker, m.Port, m.ClientID, m.Username, m.Password, m.CA})
	assert.Nil(t, m.Prefix, "ESPHome publishes nothing by itself: nobody would read it")
	assert.Contains(t, text, "topic_prefix: null")
	assert.Regexp(t, `^[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?$`, config.ESPHome.Name, "what ESPHome takes as a name")
	require.Len(t, config.Interval, 1)
	require.Len(t, config.Interval[0].Then, 1)
	publish, there := config.Interval[0].Then[0]["mqtt.publish_json"]
	require.True(t, there)
	assert.Equal(t, []any{f.Topic, 1}, []any{publish.Topic, publish.QoS})
	balanced(t, regexp.MustCompile(`"[^"]*"`).ReplaceAllString(publish.Payload, `""`))
	for line := range strings.Lines(publish.Payload) {
		assert.Regexp(t, `;$`, strings.TrimSpace(line))
	}
}

func checkNodeRED(t *testing.T, f Facts, text string) {
	var flow []map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &flow))
	nodes, byType := map[string]map[string]any{}, map[string]map[string]any{}
	for _, node := range flow {
		id, _ := node["id"].(string)
		require.Regexp(t, `^[0-9a-f]{16}$`, id)
		require.NotContains(t, nodes, id, "ids are unique")
		nodes[id], byType[fmt.Sprint(node["type"])] = node, node
	}
	for _, node := range flow {
		for _, field := range []string{"z", "broker", "tls"} {
			if to, ok := node[field].(string); ok && node["type"] != "mqtt-broker" || ok && field == "tls" {
				assert.Contains(t, nodes, to, "%s of %s", field, node["type"])
			}
		}
		wires, _ := node["wires"].([]any)
		for _, output := range wires {
			for _, to := range output.([]any) {
				assert.Contains(t, nodes, to)
			}
		}
	}
	out, broker := byType["mqtt out"], byType["mqtt-broker"]
	assert.Equal(t, []any{f.Topic, "1"}, []any{out["topic"], out["qos"]})
	assert.Equal(t, []any{f.Host, fmt.Sprint(f.Port), f.Device, f.TLS()}, []any{broker["broker"], broker["port"], broker["clientid"], broker["usetls"]})
	assert.Equal(t, map[string]any{"user": f.Device, "password": f.Password}, broker["credentials"])
	if !f.TLS() {
		assert.NotContains(t, byType, "tls-config")
		return
	}
	assert.Equal(t, true, byType["tls-config"]["verifyservercert"])
	assert.Equal(t, f.CA, byType["tls-config"]["credentials"].(map[string]any)["cadata"])
}

// checkConsole knows the commands of Tasmota that the form uses, with what each takes (docs/Commands.md of Tasmota).
func checkConsole(t *testing.T, f Facts, text string) {
	takes := map[string]string{
		"SetOption103": `[01]`, "SetOption132": `[01]`, "SetOption165": `[01]`, "MqttFingerprint1": `([0-9A-F]{2} ){19}[0-9A-F]{2}`,
		"MqttHost": `[A-Za-z0-9.:_-]{1,32}`, "MqttPort": `[1-9]\d{0,4}`, "MqttClient": `[A-Za-z0-9._-]{1,32}`, "MqttUser": `[A-Za-z0-9._-]{1,32}`,
		"MqttPassword": `[A-Za-z0-9_-]+`, "Topic": `[A-Za-z0-9._-]{1,32}`, "FullTopic": `[A-Za-z0-9%/]+/`, "TelePeriod": `(1\d|[2-9]\d|[1-9]\d{2,3})`,
		"Rule1": `1|(ON \S+#\S+ DO Publish \S+ \{"\w+":%value%\} ENDON ?)+`,
	}
	said := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		require.NotEmpty(t, line)
		assert.Less(t, len(line), 512, "what the console takes in one line")
		commands := []string{line}
		if list, backlog := strings.CutPrefix(line, "Backlog "); backlog {
			commands = strings.Split(list, ";")
			assert.LessOrEqual(t, len(commands), 30)
		}
		for _, command := range commands {
			name, argument, _ := strings.Cut(strings.TrimSpace(command), " ")
			require.Contains(t, takes, name)
			assert.Regexp(t, `^(`+takes[name]+`)$`, argument, name)
			said[name] = argument
		}
	}
	assert.Equal(t, []string{f.Host, fmt.Sprint(f.Port), f.Device, f.Password}, []string{said["MqttHost"], said["MqttPort"], said["MqttUser"], said["MqttPassword"]})
	assert.Equal(t, f.TLS(), said["SetOption103"] == "1")
	assert.Equal(t, f.TLS(), said["SetOption132"] == "1", "the server is known by its key")
}
