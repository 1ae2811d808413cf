package config

import (
	"fmt"
	"net/mail"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/plantops/plantops/broker/topic"
)

// Alerts says what people are told, when and where.
type Alerts struct {
	Channels       []AlertChannel `mapstructure:"channels"`
	DiscordWebhook Secret         `mapstructure:"discord_webhook_url"` // a channel called discord; "" means none
	QuietHours     string         `mapstructure:"quiet_hours"`         // "" means none
	After          time.Duration  `mapstructure:"after"`
	Cooldown       time.Duration  `mapstructure:"cooldown"`
	Repeat         time.Duration  `mapstructure:"repeat"` // 0 means never
	Offline        bool           `mapstructure:"offline"`
	Silent         bool           `mapstructure:"silent"`
	Stuck          bool           `mapstructure:"stuck"`
	PageURL        string         `mapstructure:"page_url"`      // "" means that messages have no buttons
	HeartbeatURL   Secret         `mapstructure:"heartbeat_url"` // "" means none
}

// AlertChannel is a way to people.
type AlertChannel struct {
	Name         string
	Type         string // ntfy, discord, telegram, webhook, email, mqtt
	URL          Secret `key:"url"` // of ntfy (with the topic), discord, webhook
	URLFile      string `key:"url_file"`
	Token        Secret // of ntfy, telegram
	TokenFile    string `key:"token_file"`
	Chat         string // of telegram
	Secret       Secret // signs what goes to a webhook
	SecretFile   string `key:"secret_file"`
	Topic        string // of mqtt
	Server       string // of email, host:port
	Encryption   string // of email: starttls, tls, none
	Username     string
	Password     Secret
	PasswordFile string `key:"password_file"`
	From         string
	To           string // addresses with commas between them
}

// DiscordChannel is what the channel of alerts.discord_webhook_url is called.
const DiscordChannel = "discord"

// AllChannels are those of the list, and the one of alerts.discord_webhook_url.
func (a Alerts) AllChannels() []AlertChannel {
	list := slices.Clone(a.Channels)
	if a.DiscordWebhook != "" {
		list = append(list, AlertChannel{Name: DiscordChannel, Type: "discord", URL: a.DiscordWebhook})
	}
	return list
}

// secretInFile reports whether a secret of a channel stands in the configuration itself.
func (a Alerts) secretInFile() bool {
	return slices.ContainsFunc(a.Channels, func(c AlertChannel) bool {
		return c.URL != "" && c.URLFile == "" || c.Token != "" && c.TokenFile == "" || c.Secret != "" && c.SecretFile == "" || c.Password != "" && c.PasswordFile == ""
	})
}

// channelNames are the channels as a person calls them.
func channelNames(channels []AlertChannel) string {
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// channels reads alerts.channels: a list whose items are keys and values.
func (f *file) channels(key, node *yaml.Node, s setting) (any, bool) {
	list := make([]AlertChannel, len(node.Content))
	for i, item := range node.Content {
		path := fmt.Sprintf("%s[%d]", s.path, i)
		f.sources[path] = f.line(item)
		if item.Kind != yaml.MappingNode {
			f.problem(item, path, "", "must have keys such as name, type and url")
			continue
		}
		c := &list[i]
		f.fill(item, path, reflect.ValueOf(c).Elem())
		for _, secret := range []struct {
			name, file string
			into       *Secret
		}{{"url", c.URLFile, &c.URL}, {"token", c.TokenFile, &c.Token}, {"secret", c.SecretFile, &c.Secret}, {"password", c.PasswordFile, &c.Password}} {
			f.secretFile(item, path, secret.name, secret.file, secret.into)
		}
	}
	f.sources[s.path] = f.line(key)
	return list, true
}

// secretFile reads the file that holds a secret.
func (f *file) secretFile(item *yaml.Node, path, name, file string, into *Secret) {
	switch {
	case file == "":
	case *into != "":
		f.problem(item, path, "", fmt.Sprintf("has both %s and %s_file; remove one", name, name))
	default:
		text, err := readSecret(file)
		if err != nil {
			f.problem(item, path, "", name+"_file: "+err.Error())
			return
		}
		*into = Secret(text)
	}
}

var quietHours = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9] ?- ?([01][0-9]|2[0-3]):[0-5][0-9]$`)

// alerts checks what is said of alerts.
func (v *validator) alerts() {
	a := &v.config.Alerts
	if a.QuietHours != "" && !quietHours.MatchString(a.QuietHours) {
		v.refuse("alerts.quiet_hours", "must be two times of the day such as 22:00-07:00")
	} else if from, to, _ := strings.Cut(strings.ReplaceAll(a.QuietHours, " ", ""), "-"); from != "" && from == to {
		v.refuse("alerts.quiet_hours", "begins when it ends; remove it, or write two times such as 22:00-07:00")
	}
	v.within("alerts.after", 0, 7*day)
	v.within("alerts.cooldown", 0, 30*day)
	if a.Repeat != 0 {
		v.within("alerts.repeat", 10*time.Minute, 30*day)
	}
	if a.PageURL != "" && !webAddress(a.PageURL) {
		v.refuse("alerts.page_url", "must be the address of the web page as a phone reaches it, such as https://plants.example.org")
	}
	for key, address := range map[string]Secret{"alerts.heartbeat_url": a.HeartbeatURL, "alerts.discord_webhook_url": a.DiscordWebhook} {
		if address != "" && !webAddress(address.Reveal()) {
			v.refuse(key, "must be an address that begins with https:// or http://")
		}
	}
	for i := range a.Channels {
		c := channelCheck{itemCheck{v, fmt.Sprintf("alerts.channels[%d]", i)}, &a.Channels[i]}
		c.name(a.Channels[:i])
		c.kind()
	}
}

// webAddress reports whether a text is an address of the web.
func webAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && printable(text)
}

type channelCheck struct {
	itemCheck
	channel *AlertChannel
}

func (c channelCheck) name(before []AlertChannel) {
	name := c.channel.Name
	taken := slices.ContainsFunc(before, func(o AlertChannel) bool { return o.Name == name }) || c.config.Alerts.DiscordWebhook != "" && name == DiscordChannel
	switch {
	case len(name) > 32 || !bridgeName.MatchString(name):
		c.refuse("name", name, "must be a name of at most 32 letters, digits, - and _")
	case taken:
		c.refuse("name", name, "is the name of another channel; give each its own")
	}
}

// channelKeys are what a channel of a type may have beside name and type; those with * it must have.
var channelKeys = map[string]string{
	"ntfy":     "url* token",
	"discord":  "url*",
	"telegram": "token* chat* url",
	"webhook":  "url* secret",
	"email":    "server* from* to* encryption username password",
	"mqtt":     "topic*",
}

func (c channelCheck) kind() {
	one := c.channel
	keys, known := channelKeys[one.Type]
	if !known {
		c.refuse("type", one.Type, "must be one of ntfy, discord, telegram, webhook, email, mqtt")
		return
	}
	for _, set := range []struct {
		key   string
		there bool
	}{{"url", one.URL != ""}, {"token", one.Token != ""}, {"chat", one.Chat != ""}, {"secret", one.Secret != ""}, {"topic", one.Topic != ""}, {"server", one.Server != ""},
		{"encryption", one.Encryption != ""}, {"username", one.Username != ""}, {"password", one.Password != ""}, {"from", one.From != ""}, {"to", one.To != ""}} {
		words := strings.Fields(keys)
		switch {
		case !set.there && slices.Contains(words, set.key+"*"):
			c.refuse(set.key, "", "is missing: a channel of type %s needs it", one.Type)
		case set.there && !slices.Contains(words, set.key) && !slices.Contains(words, set.key+"*"):
			c.refuse(set.key, "", "is not for a channel of type %s; remove it", one.Type)
		}
	}
	c.values()
}

func (c channelCheck) values() {
	one := c.channel
	if one.URL != "" && !webAddress(one.URL.Reveal()) {
		c.refuse("url", redacted, "must be an address that begins with https:// or http://")
	}
	if u, err := url.Parse(one.URL.Reveal()); one.Type == "ntfy" && one.URL != "" && err == nil && strings.Trim(u.Path, "/") == "" {
		c.refuse("url", redacted, "must end with the topic, such as https://ntfy.sh/my-plants")
	}
	if one.Topic != "" && (topic.Filters{NoControl: true}.Fault(one.Topic) != topic.Faultless || strings.ContainsAny(one.Topic, "+#$")) {
		c.refuse("topic", one.Topic, "must be an MQTT topic without + # $, such as plantops/alerts")
	}
	if one.Server != "" && !validAddress(one.Server) {
		c.refuse("server", one.Server, "must be host:port, such as mail.example.org:587")
	}
	switch one.Encryption {
	case "", "starttls", "tls", "none":
	default:
		c.refuse("encryption", one.Encryption, "must be starttls, tls or none")
	}
	if _, err := mail.ParseAddress(one.From); one.From != "" && err != nil {
		c.refuse("from", one.From, "must be an address, such as plantops@example.org")
	}
	if _, err := mail.ParseAddressList(one.To); one.To != "" && err != nil {
		c.refuse("to", one.To, "must be addresses with commas between them, such as anna@example.org")
	}
}
