package mqttcli

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestWhatAMessageLooksLike(t *testing.T) {
	reading := Message{Topic: "home/door", Payload: []byte(`{"open": 1}`), QoS: 1, ID: 7, Retain: true}
	hostile := Message{Topic: "a/\x1b[2J", Payload: []byte("red \x1b[31m\nü\u009b1m")}
	binary := Message{Topic: "bin", Payload: append([]byte{0xff, 0}, make([]byte, 40)...)}
	rich := Message{Topic: "t", ContentType: "text/plain", ResponseTopic: "r/\x07", CorrelationData: []byte("c1"), Expiry: 60, Text: true,
		SubscriptionIDs: []int{1, 2}, User: []Property{{"a", "b"}, {"c", "d"}}, Dup: true}
	for name, c := range map[string]struct {
		printer Printer
		message Message
		want    string
	}{
		"the payload alone":          {Printer{}, reading, `{"open": 1}` + "\n"},
		"without a line break":       {Printer{NoEOL: true}, reading, `{"open": 1}`},
		"topic, as mosquitto_sub -v": {Printer{Topics: true}, reading, `home/door {"open": 1}` + "\n"},
		"a program gets what it is":  {Printer{Topics: true}, hostile, "a/\x1b[2J red \x1b[31m\nü\u009b1m\n"},
		"a terminal obeys nothing":   {Printer{Topics: true, Terminal: true}, hostile, "a/\ufffd[2J red \ufffd[31m\nü\ufffd1m\n"},
		"no text":                    {Printer{Terminal: true}, binary, "<42 bytes: ff00" + strings.Repeat("00", 30) + "…>\n"},
		"no text, short":             {Printer{Terminal: true}, Message{Payload: []byte{0x80}}, "<1 bytes: 80>\n"},
		"retained":                   {Printer{Topics: true, Terminal: true}, reading, `home/door (retained) {"open": 1}` + "\n"},
		"in colours":                 {Printer{Topics: true, Terminal: true, Colours: true}, reading, "\x1b[36mhome/door\x1b[0m \x1b[33m(retained) \x1b[0m" + `{"open": 1}` + "\n"},
		"letters":                    {Printer{Format: `%t|%p|%l|%x|%X|%q|%r|%m|%d|%%\t\\%I|%U`}, reading, "home/door|{\"open\": 1}|11|7b226f70656e223a20317d|7B226F70656E223A20317D|1|1|7|0|%\t\\2026-01-02T03:04:05+0000|1767323045.000000006\n"},
		"properties":                 {Printer{Format: "%C|%R|%D|%E|%F|%S|%P|%d"}, rich, "text/plain|r/\x07|c1|60|1|1 2|a:b c:d|1\n"},
		"properties on a terminal":   {Printer{Format: "%R", Terminal: true}, rich, "r/\ufffd\n"},
		"a payload on a terminal":    {Printer{Format: "%t %p", Terminal: true}, hostile, "a/\ufffd[2J red \ufffd[31m\nü\ufffd1m\n"},
		"JSON, the payload as text":  {Printer{Format: "%j"}, reading, `{"tst":"2026-01-02T03:04:05.000000Z","topic":"home/door","qos":1,"retain":1,"payloadlen":11,"mid":7,"payload":"{\"open\": 1}"}` + "\n"},
		"JSON, the payload as it is": {Printer{Format: "%J"}, reading, `{"tst":"2026-01-02T03:04:05.000000Z","topic":"home/door","qos":1,"retain":1,"payloadlen":11,"mid":7,"payload":{"open":1}}` + "\n"},
		"JSON, the payload is none":  {Printer{Format: "%J"}, Message{Payload: []byte("on")}, `{"tst":"2026-01-02T03:04:05.000000Z","topic":"","qos":0,"retain":0,"payloadlen":2,"payload":"on"}` + "\n"},
		"JSON, there is no payload":  {Printer{Format: "%j"}, Message{Topic: "a"}, `{"tst":"2026-01-02T03:04:05.000000Z","topic":"a","qos":0,"retain":0,"payloadlen":0,"payload":null}` + "\n"},
		"JSON, properties": {Printer{Format: "%j"}, Message{ContentType: "text/x", Text: true, Expiry: 9, User: []Property{{"k", "v"}}, CorrelationData: []byte("c"), ResponseTopic: "r"},
			`{"tst":"2026-01-02T03:04:05.000000Z","topic":"","qos":0,"retain":0,"payloadlen":0,"properties":{"message-expiry-interval":9,` +
				`"payload-format-indicator":1,"content-type":"text/x","response-topic":"r","correlation-data":"c","user-properties":{"k":"v"}},"payload":null}` + "\n"},
		"JSON, the payload is no text":     {Printer{Format: "%j"}, Message{Payload: []byte{0xff}}, `{"tst":"2026-01-02T03:04:05.000000Z","topic":"","qos":0,"retain":0,"payloadlen":1,"payload":"/w==","base64":true}` + "\n"},
		"JSON on a terminal obeys nothing": {Printer{Format: "%j", Terminal: true}, Message{Payload: []byte("\u009b1m")}, `{"tst":"2026-01-02T03:04:05.000000Z","topic":"","qos":0,"retain":0,"payloadlen":4,"payload":"` + "\ufffd" + `1m"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			c.printer.W = &out
			c.printer.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC) }
			assert.NoError(t, c.printer.Print(c.message))
			assert.Equal(t, c.want, out.String())
		})
	}
}

func TestFormats(t *testing.T) {
	assert.NoError(t, CheckFormat(""))
	assert.NoError(t, CheckFormat("%t: %p%%"))
	assert.Error(t, CheckFormat("%z"))
	assert.Error(t, CheckFormat("100%"))
	for _, letter := range formatLetters {
		assert.NoError(t, CheckFormat("%"+string(letter)))
	}
}

// Whatever comes, a terminal gets nothing but what it shows.
func FuzzATerminalObeysNothing(f *testing.F) {
	f.Add("home/\x1b[2J", []byte("\x1b]0;title\x07"), "%t %p %j %J %x")
	f.Add("a", []byte{0xc2, 0x9b}, "")
	f.Fuzz(func(t *testing.T, topic string, payload []byte, format string) {
		if CheckFormat(format) != nil || strings.ContainsRune(format, '\\') || Visible(format) != format {
			t.Skip() // what a person writes themselves is theirs
		}
		var out strings.Builder
		p := Printer{W: &out, Format: format, Topics: true, Terminal: true, Now: time.Now}
		m := Message{Topic: topic, Payload: payload, ContentType: topic, ResponseTopic: topic, CorrelationData: payload,
			User: []Property{{topic, topic}}}
		if err := p.Print(m); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r != '\n' && r != '\t' && Visible(string(r)) != string(r) {
				t.Fatalf("%q in %q", r, out.String())
			}
		}
	})
}
