package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/plantops/plantops/alert"
)

// Ntfy is a topic of an ntfy server.
type Ntfy struct {
	server, topic, token, page string
	zone                       *time.Location
	http                       *http.Client
}

// NewNtfy takes the address of the topic, such as https://ntfy.sh/my-plants; token may be empty. page is the address of our web page, for
// buttons; without one there are none.
func NewNtfy(address, token, page string, zone *time.Location) (*Ntfy, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("it must be an address such as https://ntfy.sh/my-plants")
	}
	path := strings.TrimSuffix(u.Path, "/")
	at := strings.LastIndex(path, "/")
	if at < 0 || path[at+1:] == "" {
		return nil, fmt.Errorf("the address has no topic: https://ntfy.sh/my-plants")
	}
	n := &Ntfy{topic: path[at+1:], token: token, page: strings.TrimSuffix(page, "/"), zone: zone, http: client()}
	u.Path = path[:at+1]
	n.server = u.String()
	return n, nil
}

// ActPath is where on our web page a button's key goes; POST only.
const ActPath = "/alerts/act"

type ntfyAction struct {
	Action string `json:"action"`
	Label  string `json:"label"`
	URL    string `json:"url"`
	Method string `json:"method"`
	Clear  bool   `json:"clear"`
}

// Send implements Channel.
func (n *Ntfy) Send(ctx context.Context, e *Envelope) error {
	content := map[string]any{"topic": n.topic, "title": e.title(), "message": e.body(n.zone)}
	if e.ID != "" {
		content["sequence_id"] = e.ID // the same again takes the place of the first; older servers do not read it
	}
	switch {
	case e.Test:
		content["tags"] = []string{"seedling"}
	case e.ends():
		content["tags"] = []string{"white_check_mark"}
	default:
		content["tags"], content["priority"] = []string{"warning"}, 4
	}
	if actions := n.actions(e); len(actions) > 0 {
		content["actions"] = actions
	}
	header := http.Header{}
	if n.token != "" {
		header.Set("Authorization", "Bearer "+n.token)
	}
	return post(ctx, n.http, n.server, header, content)
}

func (n *Ntfy) actions(e *Envelope) (list []ntfyAction) {
	if n.page == "" {
		return nil
	}
	labels := map[string]string{Acknowledge: "Acknowledge", Snooze: "Snooze 2 h"}
	for _, k := range e.Keys {
		list = append(list, ntfyAction{"http", labels[k.Action], n.page + ActPath + "/" + k.Text, http.MethodPost, true})
	}
	return list
}

// Discord is a webhook of a Discord channel.
type Discord struct {
	address string
	zone    *time.Location
	http    *http.Client
}

// NewDiscord takes the address of the webhook, which is a secret.
func NewDiscord(address string, zone *time.Location) *Discord {
	return &Discord{address, zone, client()}
}

// Colours of embeds; the first two are those of the system that PlantOps replaces.
const (
	red    = 15158332
	yellow = 16776960
	green  = 3066993
)

type embed struct {
	Title       string       `json:"title"`
	Description string       `json:"description"`
	Color       int          `json:"color"`
	Fields      []embedField `json:"fields,omitempty"`
	Timestamp   string       `json:"timestamp,omitempty"`
}

type embedField struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Inline bool   `json:"inline"`
}

// What Discord takes of an embed, in characters.
const (
	mostEmbedTitle = 256
	mostEmbedText  = 4096
)

// Send implements Channel.
func (d *Discord) Send(ctx context.Context, e *Envelope) error {
	one := embed{Title: e.title(), Description: e.body(d.zone), Color: yellow}
	switch {
	case e.Test, e.ends():
		one.Color = green
	case len(e.Notices) == 1:
		d.describe(&one, &e.Notices[0])
	}
	one.Title, one.Description = cut(one.Title, mostEmbedTitle), cut(one.Description, mostEmbedText)
	return post(ctx, d.http, d.address, nil, map[string]any{
		"embeds":           []embed{one},
		"allowed_mentions": map[string]any{"parse": []string{}}, // a name such as @everyone calls nobody
	})
}

// describe gives a single notice the title and the fields that it had in the system that PlantOps replaces.
func (d *Discord) describe(one *embed, n *alert.Notice) {
	a := &n.Alert
	one.Timestamp = time.UnixMilli(n.At).UTC().Format(time.RFC3339)
	field := func(name, value string) {
		one.Fields = append(one.Fields, embedField{name, cut(value, 1024), true})
	}
	switch a.Kind {
	case alert.Threshold:
		one.Title, one.Color = "Plant Alert: "+a.Name, red
		field("Metric", a.Metric)
		if a.Value != nil && a.Limit != nil {
			field("Current", strconv.FormatFloat(*a.Value, 'f', 1, 64))
			field("Threshold", string(a.Side)+" "+strconv.FormatFloat(*a.Limit, 'f', 1, 64))
		}
	case alert.Offline:
		one.Title = "Device Offline"
		field("Device ID", a.Subject)
		field("Last Seen", ago(n.At-a.Seen))
	}
}

func ago(ms int64) string {
	if minutes := ms / time.Minute.Milliseconds(); minutes < 60 {
		return fmt.Sprintf("%d minutes ago", minutes)
	}
	return fmt.Sprintf("%d hours ago", ms/time.Hour.Milliseconds())
}

// cut shortens a text to a number of characters.
func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// Telegram is a chat that a bot writes to.
type Telegram struct {
	address, chat string
	zone          *time.Location
	http          *http.Client
}

// NewTelegram takes the bot's token and the id of the chat; server is https://api.telegram.org where it is empty.
func NewTelegram(server, token, chat string, zone *time.Location) *Telegram {
	if server == "" {
		server = "https://api.telegram.org"
	}
	return &Telegram{strings.TrimSuffix(server, "/") + "/bot" + token + "/sendMessage", chat, zone, client()}
}

// mostTelegram is what Telegram takes of a text.
const mostTelegram = 4096

// Send implements Channel.
func (t *Telegram) Send(ctx context.Context, e *Envelope) error {
	return post(ctx, t.http, t.address, nil, map[string]any{"chat_id": t.chat, "text": cut(e.title()+"\n"+e.body(t.zone), mostTelegram)})
}

// Webhook is an address of somebody's program.
type Webhook struct {
	address, secret string
	zone            *time.Location
	now             func() time.Time
	http            *http.Client
}

// NewWebhook signs what it sends where secret is not empty.
func NewWebhook(address, secret string, zone *time.Location, now func() time.Time) *Webhook {
	return &Webhook{address, secret, zone, now, client()}
}

// What goes to webhooks and MQTT topics.
type published struct {
	ID      string         `json:"id,omitempty"` // the same again is the same message
	Title   string         `json:"title"`
	Text    string         `json:"text"`
	Test    bool           `json:"test,omitempty"`
	Notices []alert.Notice `json:"notices"`
	More    int            `json:"more,omitempty"`
}

func publish(e *Envelope, zone *time.Location) ([]byte, error) {
	p := published{ID: e.ID, Title: e.title(), Text: e.body(zone), Test: e.Test, Notices: e.Notices, More: e.More}
	if p.Notices == nil {
		p.Notices = []alert.Notice{}
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write the message: %w", err)
	}
	return text, nil
}

// Headers of webhooks. The signature is the HMAC-SHA-256 of timestamp, a point and the body, in hexadecimal digits.
const (
	timestampHeader = "X-Plantops-Timestamp"
	signatureHeader = "X-Plantops-Signature"
	idHeader        = "Idempotency-Key"
)

// Send implements Channel.
func (w *Webhook) Send(ctx context.Context, e *Envelope) error {
	text, err := publish(e, w.zone)
	if err != nil {
		return err
	}
	header := http.Header{}
	if e.ID != "" {
		header.Set(idHeader, e.ID)
	}
	if w.secret != "" {
		stamp := strconv.FormatInt(w.now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte(w.secret))
		mac.Write([]byte(stamp + "."))
		mac.Write(text)
		header.Set(timestampHeader, stamp)
		header.Set(signatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return postText(ctx, w.http, w.address, header, text)
}

// Publisher publishes to the broker, at least once, and returns when it is acknowledged.
type Publisher interface {
	Publish(ctx context.Context, topic string, payload []byte) error
}

// MQTT is a topic.
type MQTT struct {
	topic string
	to    Publisher
	zone  *time.Location
}

// NewMQTT publishes to a topic.
func NewMQTT(topic string, to Publisher, zone *time.Location) *MQTT { return &MQTT{topic, to, zone} }

// Send implements Channel.
func (m *MQTT) Send(ctx context.Context, e *Envelope) error {
	text, err := publish(e, m.zone)
	if err != nil {
		return err
	}
	return m.to.Publish(ctx, m.topic, text)
}
