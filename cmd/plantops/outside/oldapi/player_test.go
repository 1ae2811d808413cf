//go:build linux

package oldapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// step is one line of testdata/sequence.jsonl. In its texts {name} stands for what an earlier step has saved.
type step struct {
	Name    string            `json:"step"`
	Kind    string            // mqtt; else HTTP
	Method  string            // of HTTP, as the fields up to Wait
	Path    string            // with the query
	Auth    *bool             // false: no token
	Headers map[string]string // beside those of every request
	Body    any
	Raw     string // in place of Body
	Status  []int
	Shape   any
	Equal   map[string]any     // by path; # is a length
	Differ  map[string]any     // by path
	Recent  map[string]float64 // by path; seconds from now
	Save    map[string]string  // path by name
	Wait    float64            // it is repeated until it is right; the clock does not count here, only that there is such a word

	ClientID string `json:"client_id"` // of MQTT, as what follows
	Username string
	Password string
	Topic    string
	Payload  any
	QoS      byte
	Accepted *bool // nil: it may be let in or not
}

func readSteps(t *testing.T) (list []step) {
	t.Helper()
	file, err := os.Open("testdata/sequence.jsonl")
	require.NoError(t, err)
	defer func() { _ = file.Close() }() // it was read
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s step
		require.NoError(t, json.Unmarshal(lines.Bytes(), &s), lines.Text())
		list = append(list, s)
	}
	require.NoError(t, lines.Err())
	return list
}

// player plays steps.
type player struct {
	*testing.T
	base, token string
	broker      door.Door
	saved       map[string]any
}

var name = regexp.MustCompile(`\{(\w+)\}`)

// filled is a part of a step with what was saved in it. A text that is nothing but one name keeps the type of what was saved.
func (p *player) filled(part any) any {
	switch v := part.(type) {
	case string:
		if whole := name.FindString(v); whole == v && v != "" {
			return p.value(v[1 : len(v)-1])
		}
		return name.ReplaceAllStringFunc(v, func(n string) string { return fmt.Sprint(p.value(n[1 : len(n)-1])) })
	case map[string]any:
		out := map[string]any{}
		for k, one := range v {
			out[k] = p.filled(one)
		}
		return out
	case []any:
		out := slices.Clone(v)
		for i := range out {
			out[i] = p.filled(out[i])
		}
		return out
	}
	return part
}

func (p *player) text(part string) string { return fmt.Sprint(p.filled(part)) }

func (p *player) value(n string) any {
	if hours, ago := strings.CutPrefix(n, "hours_ago_"); ago {
		back, err := strconv.ParseFloat(strings.ReplaceAll(hours, "_", "."), 64)
		require.NoError(p, err)
		return time.Now().Add(-time.Duration(back * float64(time.Hour))).UTC().Format("2006-01-02T15:04:05.000Z07:00")
	}
	v, there := p.saved[n]
	require.True(p, there, "no step has saved %s", n)
	return v
}

// play plays one step until it is right, as long as it may be repeated.
func (p *player) play(s *step) {
	p.Helper()
	once := p.http
	if s.Kind == "mqtt" {
		once = p.mqtt
	}
	err := once(s)
	for until := time.Now().Add(setting.Patience); err != nil && s.Wait > 0 && time.Now().Before(until); err = once(s) {
		select {
		case <-p.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	require.NoError(p, err, "step %q", s.Name)
}

func (p *player) http(s *step) error {
	body := s.Raw
	if s.Body != nil {
		text, err := json.Marshal(p.filled(s.Body))
		require.NoError(p, err)
		body = string(text)
	}
	r, err := http.NewRequestWithContext(p.Context(), s.Method, p.base+p.text(s.Path), strings.NewReader(body))
	require.NoError(p, err)
	r.Header.Set("Content-Type", "application/json")
	for k, v := range s.Headers {
		r.Header.Set(k, v)
	}
	if s.Auth == nil || *s.Auth {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	response, err := http.DefaultTransport.RoundTrip(r) // which follows no redirect
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if !slices.Contains(s.Status, response.StatusCode) {
		return fmt.Errorf("status %d, not %v: %.300s", response.StatusCode, s.Status, text)
	}
	if response.StatusCode == http.StatusNoContent && len(text) > 0 {
		return fmt.Errorf("204 with a body: %s", text)
	}
	if s.Shape == nil {
		return nil
	}
	var answer any
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("no JSON: %.300s", text)
	}
	if err := p.judge(s, answer); err != nil {
		return fmt.Errorf("%w; the answer: %.600s", err, text)
	}
	return nil
}

func (p *player) judge(s *step, answer any) error {
	for n, path := range s.Save {
		v, err := at(answer, path)
		if err != nil {
			return err
		}
		p.saved[n] = v
	}
	if err := fits(answer, s.Shape, "answer"); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(s.Equal)) {
		v, err := at(answer, path)
		if want := p.filled(s.Equal[path]); err == nil && !reflect.DeepEqual(v, want) {
			err = fmt.Errorf("%s is %v, not %v", path, v, want)
		}
		if err != nil {
			return err
		}
	}
	for path, other := range s.Differ {
		if v, err := at(answer, path); err != nil || reflect.DeepEqual(v, p.filled(other)) {
			return fmt.Errorf("%s is still %v, %v", path, v, err)
		}
	}
	for path, seconds := range s.Recent {
		v, err := at(answer, path)
		if err != nil {
			return err
		}
		moment, err := time.Parse(time.RFC3339, fmt.Sprint(v))
		if err != nil || time.Since(moment).Abs().Seconds() > seconds {
			return fmt.Errorf("%s is %v, more than %v s from now", path, v, seconds)
		}
	}
	return nil
}

// at is what stands at a path.
func at(answer any, path string) (any, error) {
	value := answer
	for key := range strings.SplitSeq(path, ".") {
		list, isList := value.([]any)
		object, isObject := value.(map[string]any)
		number, err := strconv.Atoi(key)
		next, there := object[key]
		switch {
		case isList && key == "#":
			value = float64(len(list))
		case isList && err == nil && number < len(list):
			value = list[number]
		case isObject && there:
			value = next
		default:
			return nil, fmt.Errorf("%s is not there", path)
		}
	}
	return value, nil
}

var moment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)

// kinds are the words of a shape.
var kinds = map[string]func(any) bool{
	"null":    func(v any) bool { return v == nil },
	"boolean": func(v any) bool { _, is := v.(bool); return is },
	"integer": func(v any) bool { n, is := v.(float64); return is && n == float64(int64(n)) },
	"number":  func(v any) bool { _, is := v.(float64); return is },
	"string":  func(v any) bool { _, is := v.(string); return is },
	"text":    func(v any) bool { s, is := v.(string); return is && strings.TrimSpace(s) != "" },
	"time":    func(v any) bool { s, is := v.(string); return is && moment.MatchString(s) },
	"array":   func(v any) bool { _, is := v.([]any); return is },
	"object":  func(v any) bool { _, is := v.(map[string]any); return is },
}

func fits(value, shape any, path string) error {
	switch s := shape.(type) {
	case string:
		for word := range strings.SplitSeq(s, "|") {
			if kinds[word](value) {
				return nil
			}
		}
		return fmt.Errorf("%s is %v, not %s", path, value, s)
	case []any:
		list, is := value.([]any)
		if !is {
			return fmt.Errorf("%s is no array", path)
		}
		for i, one := range list {
			if err := fits(one, s[0], fmt.Sprintf("%s.%d", path, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		object, is := value.(map[string]any)
		if !is {
			return fmt.Errorf("%s is no object", path)
		}
		for n, kind := range s {
			one, there := object[n]
			if !there {
				return fmt.Errorf("%s.%s is missing", path, n)
			}
			if err := fits(one, kind, path+"."+n); err != nil {
				return err
			}
		}
	}
	return nil
}

// mqtt publishes as the firmware does: MQTT 3.1.1, and goes when the message is read.
func (p *player) mqtt(s *step) error {
	a, code, err := p.broker.Enter(p.T, rawmqtt.Login{User: p.text(s.Username), Secret: p.text(s.Password), ClientID: p.text(s.ClientID), Version: 4})
	if err != nil {
		return err
	}
	if s.Accepted != nil && *s.Accepted != (code == 0) {
		return fmt.Errorf("CONNACK %d, let in should be %t", code, *s.Accepted)
	}
	if code != 0 {
		return nil
	}
	payload, isText := s.Payload.(string)
	if !isText {
		text, err := json.Marshal(p.filled(s.Payload))
		require.NoError(p, err)
		payload = string(text)
	}
	packet := rawmqtt.AppendString(nil, p.text(s.Topic))
	if s.QoS > 0 {
		packet = append(packet, 0, 1)
	}
	a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|s.QoS<<1, append(packet, payload...)))
	if s.QoS > 0 {
		if _, err := a.Await(rawmqtt.Puback); err != nil {
			return err
		}
	}
	a.Send(rawmqtt.Encode(rawmqtt.Disconnect<<4, nil))
	if !a.Ended(setting.Patience) {
		return fmt.Errorf("the broker has not closed the connection")
	}
	return nil
}
