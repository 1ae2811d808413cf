package notify

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/store/outbox"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// dry is a threshold that is passed.
func dry() *Envelope {
	value, limit := 15.24, 20.0
	a := alert.Alert{ID: 7, Key: alert.Key{Kind: alert.Threshold, Subject: "p1", Metric: "soil_moisture", Side: alert.Min}, Name: "Basil", Device: "bed-1",
		Value: &value, Limit: &limit, Opened: noon.UnixMilli()}
	return &Envelope{Message: alert.Message{ID: "box-1", Notices: []alert.Notice{{What: alert.Begins, At: noon.UnixMilli(), Alert: a}}},
		Keys: []Key{{Acknowledge, "key-a"}, {Snooze, "key-s"}}}
}

func over() *Envelope {
	e := dry()
	e.Keys, e.Notices[0].What, e.Notices[0].Alert.Closed = nil, alert.Ends, noon.Add(time.Hour).UnixMilli()
	return e
}

// asked is what a server was asked last.
type asked struct {
	path   string
	header http.Header
	body   []byte
}

// server answers as it is told to.
func server(t *testing.T, answer http.HandlerFunc) (address string, last *asked) {
	last = &asked{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last.path, last.header = r.URL.Path, r.Header
		last.body, _ = io.ReadAll(r.Body)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, last
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func (a *asked) json(t *testing.T) map[string]any {
	var content map[string]any
	require.NoError(t, json.Unmarshal(a.body, &content), string(a.body))
	return content
}

func TestDiscordGetsTheEmbedsOfTheOldSystem(t *testing.T) {
	address, last := server(t, status(204))
	d := NewDiscord(address+"/api/webhooks/1", time.UTC)
	require.NoError(t, d.Send(t.Context(), dry()))
	assert.Equal(t, "/api/webhooks/1", last.path)
	one := last.json(t)["embeds"].([]any)[0].(map[string]any)
	assert.Equal(t, "Plant Alert: Basil", one["title"])
	assert.EqualValues(t, 15158332, one["color"])
	assert.Equal(t, []any{
		map[string]any{"name": "Metric", "value": "soil_moisture", "inline": true}, map[string]any{"name": "Current", "value": "15.2", "inline": true},
		map[string]any{"name": "Threshold", "value": "min 20.0", "inline": true}}, one["fields"])
	assert.Equal(t, "2026-06-01T12:00:00Z", one["timestamp"])
	e := dry()
	a := &e.Notices[0].Alert
	a.Key, a.Name, a.Seen = alert.Key{Kind: alert.Offline, Subject: "bed-1"}, "bed-1", noon.Add(-5*time.Minute).UnixMilli()
	require.NoError(t, d.Send(t.Context(), e))
	one = last.json(t)["embeds"].([]any)[0].(map[string]any)
	assert.Equal(t, "Device Offline", one["title"])
	assert.EqualValues(t, 16776960, one["color"])
	assert.Contains(t, fmt.Sprint(one["fields"]), "5 minutes ago")
	require.NoError(t, d.Send(t.Context(), over()))
	assert.EqualValues(t, green, last.json(t)["embeds"].([]any)[0].(map[string]any)["color"])
}

func TestNtfyGetsButtonsWithTheirKeys(t *testing.T) {
	address, last := server(t, status(200))
	n, err := NewNtfy(address+"/base/plants", "tk_1", "https://plants.example/", time.UTC)
	require.NoError(t, err)
	require.NoError(t, n.Send(t.Context(), dry()))
	assert.Equal(t, "/base/", last.path)
	assert.Equal(t, "Bearer tk_1", last.header.Get("Authorization"))
	content := last.json(t)
	assert.Equal(t, "plants", content["topic"])
	assert.Equal(t, "Basil: soil moisture too low", content["title"])
	assert.Equal(t, "box-1", content["sequence_id"])
	actions := content["actions"].([]any)
	require.Len(t, actions, 2)
	assert.Equal(t, "https://plants.example/alerts/act/key-a", actions[0].(map[string]any)["url"])
	assert.Equal(t, "POST", actions[0].(map[string]any)["method"])
	require.NoError(t, n.Send(t.Context(), over()))
	assert.NotContains(t, last.json(t), "actions")
}

func TestTelegramAndWebhook(t *testing.T) {
	address, last := server(t, status(200))
	require.NoError(t, NewTelegram(address, "1:secret", "-100", time.UTC).Send(t.Context(), dry()))
	assert.Equal(t, "/bot1:secret/sendMessage", last.path)
	assert.Equal(t, "-100", last.json(t)["chat_id"])
	assert.Contains(t, last.json(t)["text"], "Basil: soil moisture too low\nSince 2026-06-01 12:00: soil moisture is 15.2 %")

	require.NoError(t, NewWebhook(address, "s", time.UTC, func() time.Time { return noon }).Send(t.Context(), dry()))
	assert.Equal(t, "box-1", last.header.Get("Idempotency-Key"))
	stamp := last.header.Get(timestampHeader)
	mac := hmac.New(sha256.New, []byte("s"))
	mac.Write([]byte(stamp + "." + string(last.body)))
	assert.Equal(t, "sha256="+hex.EncodeToString(mac.Sum(nil)), last.header.Get(signatureHeader))
	assert.Equal(t, "box-1", last.json(t)["id"])
	assert.NotContains(t, string(last.body), "key-a", "keys are for buttons only")
}

func TestFailuresOfServersAreErrorsWithoutSecrets(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
	}
	closes := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	hangs := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		refused bool
		later   time.Duration
	}{
		"500":     {answer: status(500)},
		"302":     {answer: status(302)},
		"401":     {answer: status(401)},
		"400":     {answer: status(400), refused: true},
		"half":    {answer: cut},
		"closed":  {answer: closes},
		"timeout": {answer: hangs},
		"429":     {answer: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "7"); w.WriteHeader(429) }, later: 7 * time.Second},
		"429, body": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(429)
			_, _ = w.Write([]byte(`{"retry_after":1.5}`))
		}, later: 1500 * time.Millisecond},
		"telegram": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(429)
			_, _ = w.Write([]byte(`{"ok":false,"parameters":{"retry_after":9}}`))
		}, later: 9 * time.Second},
		"429, days": {answer: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "1e9"); w.WriteHeader(429) }, later: longestLater},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := server(t, c.answer)
			ntfy, err := NewNtfy(address+"/sesame", "sesame", "", time.UTC)
			require.NoError(t, err)
			for _, channel := range []Channel{ntfy, NewDiscord(address+"/sesame", time.UTC), NewTelegram(address, "sesame", "1", time.UTC),
				NewWebhook(address+"/sesame", "sesame", time.UTC, time.Now)} {
				ctx, cancel := context.WithTimeout(t.Context(), map[bool]time.Duration{true: 100 * time.Millisecond, false: 30 * time.Second}[name == "timeout"])
				err := channel.Send(ctx, dry())
				cancel()
				require.Error(t, err)
				assert.NotContains(t, err.Error(), "sesame")
				assert.Equal(t, c.refused, errors.Is(err, ErrRefused))
				if c.later > 0 {
					var later *LaterError
					require.ErrorAs(t, err, &later)
					assert.Equal(t, c.later, later.After)
				}
			}
		})
	}
	for _, channel := range []Channel{NewDiscord("http://127.0.0.1:1/sesame", time.UTC), NewDiscord("://sesame", time.UTC)} {
		err := channel.Send(t.Context(), dry())
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "sesame")
	}
}

// mailServer speaks as much of SMTP as mail needs; reply changes an answer to a command.
func mailServer(t *testing.T, config *tls.Config, implicit bool, reply func(command string) string) (address string, mails chan string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	mails = make(chan string, 10)
	var all sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serveMail(conn, config, implicit, reply, mails) })
		}
	})
	return listener.Addr().String(), mails
}

func serveMail(conn net.Conn, config *tls.Config, implicit bool, reply func(string) string, mails chan string) {
	defer func() { _ = conn.Close() }()
	secure := implicit
	if implicit {
		conn = tls.Server(conn, config)
	}
	lines := bufio.NewReader(conn)
	say := func(text string) { _, _ = io.WriteString(conn, text+"\r\n") }
	say("220 here")
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		command, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		if other := reply(command); other != "" {
			say(other)
			continue
		}
		switch command {
		case "EHLO":
			say("250-here")
			if !secure && config != nil {
				say("250-STARTTLS")
			}
			say("250 AUTH PLAIN")
		case "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, config)
			lines, secure = bufio.NewReader(conn), true
		case "AUTH":
			say("235 welcome")
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(line)
			}
			mails <- text.String()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 yes")
		}
	}
}

func TestMailGoesOverTLSInBothWaysAndFailsOtherwise(t *testing.T) {
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate
	defer web.Close()
	config := &tls.Config{Certificates: web.TLS.Certificates}
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	none := func(string) string { return "" }
	make := func(address string, how Encryption) *Email {
		m, err := NewEmail(EmailOptions{Server: address, Encryption: how, Username: "p", Password: "sesame", From: "Plants <p@example.org>",
			To: []string{"a@example.org", "b@example.org"}, Zone: time.UTC, Now: func() time.Time { return noon }, Roots: roots})
		require.NoError(t, err)
		return m
	}
	for _, how := range []Encryption{StartTLS, ImplicitTLS} {
		address, mails := mailServer(t, config, how == ImplicitTLS, none)
		e := dry()
		e.Notices[0].Alert.Name = "Käthes Basil\r\nBcc: eve@example.org"
		require.NoError(t, make(address, how).Send(t.Context(), e))
		got, err := mail.ReadMessage(strings.NewReader(<-mails))
		require.NoError(t, err)
		subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
		require.NoError(t, err)
		assert.Equal(t, "Käthes Basil  Bcc: eve@example.org: soil moisture too low", subject)
		assert.Empty(t, got.Header.Get("Bcc"))
		assert.Equal(t, "<box-1@plantops>", got.Header.Get("Message-Id"))
		assert.Equal(t, "<a@example.org>, <b@example.org>", got.Header.Get("To"))
	}
	plain, _ := mailServer(t, nil, false, func(command string) string { return map[string]string{"STARTTLS": "502 what?"}[command] })
	require.Error(t, make(plain, StartTLS).Send(t.Context(), dry()), "a server that offers no TLS gets no password")
	for _, c := range []struct{ command, answer string }{{"AUTH", "535 no"}, {"MAIL", "451 later"}, {"RCPT", "550 who?"}, {"DATA", "554 no"}} {
		address, _ := mailServer(t, config, false, func(command string) string {
			if command == c.command {
				return c.answer
			}
			return ""
		})
		err := make(address, StartTLS).Send(t.Context(), dry())
		require.Error(t, err, c.command)
		assert.NotContains(t, err.Error(), "sesame")
		assert.Equal(t, c.command == "DATA", errors.Is(err, ErrRefused), c.command)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, make(silent.Addr().String(), StartTLS).Send(ctx, dry()))
}

type topics chan string

// Publish implements Publisher.
func (p topics) Publish(_ context.Context, topic string, payload []byte) error {
	p <- topic + " " + string(payload)
	return nil
}

func TestATopicGetsJSON(t *testing.T) {
	p := make(topics, 1)
	require.NoError(t, NewMQTT("plantops/alerts", p, time.UTC).Send(t.Context(), &Envelope{Test: true}))
	assert.Equal(t, `plantops/alerts {"title":"PlantOps: a test","text":"This channel works.","test":true,"notices":[]}`, <-p)
}

// memory is an outbox without a disk.
type memory struct {
	mu   sync.Mutex
	list []outbox.Entry
}

func (m *memory) put(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range n {
		e := dry()
		e.ID = fmt.Sprint("m-", i)
		text, _ := json.Marshal(e)
		m.list = append(m.list, outbox.Entry{ID: int64(i + 1), Message: e.ID, Body: string(text)})
	}
}

// Waiting implements Outbox.
func (m *memory) Waiting(context.Context, string) ([]outbox.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]outbox.Entry{}, m.list...), nil
}

func (m *memory) change(id int64, do func(i int)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.list {
		if m.list[i].ID == id {
			do(i)
			break
		}
	}
	return nil
}

// Sent implements Outbox.
func (m *memory) Sent(_ context.Context, id int64) error {
	return m.change(id, func(i int) { m.list = append(m.list[:i:i], m.list[i+1:]...) })
}

// Failed implements Outbox.
func (m *memory) Failed(_ context.Context, id int64, attempts int, due time.Time) error {
	return m.change(id, func(i int) { m.list[i].Attempts, m.list[i].Due = attempts, due.UnixMilli() })
}

// Merge implements Outbox.
func (m *memory) Merge(_ context.Context, ids []int64, into outbox.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	into.ID = ids[len(ids)-1]
	m.list = append(m.list[:len(m.list)-len(ids)], into)
	return nil
}

// shaky fails some times, then takes everything.
type shaky struct {
	fails int
	err   error
	got   chan Envelope
}

// Send implements Channel.
func (s *shaky) Send(_ context.Context, e *Envelope) error {
	if s.fails > 0 {
		s.fails--
		return s.err
	}
	s.got <- *e
	return nil
}

func TestAChannelThatWasAwayGetsTheRestInOneMessage(t *testing.T) {
	away, fine := &shaky{4, errors.New("no network"), make(chan Envelope, 60)}, &shaky{got: make(chan Envelope, 60)}
	one, other := &memory{}, &memory{}
	one.put(50)
	other.put(3)
	log := slog.New(slog.DiscardHandler)
	s := NewSender(Options{Channels: []Named{{"away", "test", away}}, Outbox: one, Now: time.Now, Log: log, First: time.Millisecond})
	q := NewSender(Options{Channels: []Named{{"fine", "test", fine}}, Outbox: other, Now: time.Now, Log: log, First: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { assert.NoError(t, s.Run(ctx)) })
	all.Go(func() { assert.NoError(t, q.Run(ctx)) })
	assert.Equal(t, "m-0", (<-away.got).ID)
	rest := <-away.got
	assert.Equal(t, "m-49", rest.ID)
	assert.Len(t, rest.Notices, 49)
	assert.Contains(t, rest.Title(), "49 alerts")
	for i := range 3 {
		assert.Equal(t, fmt.Sprint("m-", i), (<-fine.got).ID)
	}
	require.Eventually(t, func() bool { list, _ := one.Waiting(ctx, ""); return len(list) == 0 }, 30*time.Second, time.Millisecond)
	cancel()
	all.Wait()
	assert.Empty(t, away.got)
	assert.Empty(t, s.States()[0].Trouble)
}

func TestAMessageThatIsRefusedForeverDoesNotBlockTheNext(t *testing.T) {
	c := &shaky{refusedTimes, ErrRefused, make(chan Envelope, 2)}
	m := &memory{}
	m.put(2)
	s := NewSender(Options{Channels: []Named{{"c", "test", c}}, Outbox: m, Now: time.Now, Log: slog.New(slog.DiscardHandler), First: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { assert.NoError(t, s.Run(ctx)) })
	assert.Equal(t, "m-1", (<-c.got).ID)
	cancel()
	all.Wait()
	require.ErrorIs(t, s.Test(t.Context(), "nobody"), ErrNoChannel)
	require.NoError(t, s.Test(t.Context(), "c"))
	assert.True(t, (<-c.got).Test)
}

func TestTheHeartbeatGoesOutOnlyWhileAllIsWell(t *testing.T) {
	called := make(chan string, 10)
	address, _ := server(t, func(_ http.ResponseWriter, r *http.Request) { called <- r.URL.Path })
	well := error(nil)
	h := &Heartbeat{Address: address + "/beat", Well: func(context.Context) error { return well }, Log: slog.New(slog.DiscardHandler)}
	require.NoError(t, h.beat(t.Context(), client()))
	assert.Equal(t, "/beat", <-called)
	well = errors.New("readings cannot be stored")
	require.ErrorIs(t, h.beat(t.Context(), client()), well)
	assert.Empty(t, called)
	h.Address, well = "http://127.0.0.1:1/sesame", nil
	err := h.beat(t.Context(), client())
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "sesame")
}
