package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const manyChannels = `alerts:
  quiet_hours: "22:00-07:00"
  channels:
    - {name: phone, type: ntfy, url: "https://ntfy.sh/my-plants", token: tk_secret}
    - {name: chat, type: telegram, token: "1:secret", chat: "-100"}
    - {name: home, type: webhook, url: "http://home.lan/hook", secret: s}
    - {name: mail, type: email, server: "mail.example.org:587", from: "Plants <p@example.org>", to: "a@example.org, b@example.org", username: p, password: secret}
    - {name: topic, type: mqtt, topic: plantops/alerts}
`

func loadAlerts(t *testing.T, text string, environ ...string) (Loaded, error) {
	path := filepath.Join(t.TempDir(), "plantops.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return Load(path, environ, nil)
}

func TestChannelsOfAlertsAreReadAndTheOldVariableIsOne(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "hook")
	require.NoError(t, os.WriteFile(secret, []byte("https://discord.example/api/webhooks/1\n"), 0o600))
	for _, variable := range []string{"DISCORD_WEBHOOK_URL=https://discord.example/api/webhooks/1", "DISCORD_WEBHOOK_URL_FILE=" + secret} {
		l, err := loadAlerts(t, manyChannels, variable)
		require.NoError(t, err)
		all := l.Config.Alerts.AllChannels()
		require.Len(t, all, 6)
		assert.Equal(t, Secret("tk_secret"), all[0].Token)
		assert.Equal(t, AlertChannel{Name: "discord", Type: "discord", URL: "https://discord.example/api/webhooks/1"}, all[5])
		assert.Equal(t, "phone, chat, home, mail, topic", l.value("alerts.channels").Value)
	}
}

func TestChannelsThatCannotBeAreRefusedByNameAndWithoutTheirSecrets(t *testing.T) {
	for text, want := range map[string]string{
		`{name: a b, type: ntfy, url: "https://n/x"}`:                                        `alerts.channels[0].name`,
		`{name: a, type: pigeon}`:                                                            "must be one of ntfy",
		`{name: a, type: ntfy}`:                                                              "alerts.channels[0].url",
		`{name: a, type: ntfy, url: "https://ntfy.sh"}`:                                      "must end with the topic",
		`{name: a, type: ntfy, url: "https://n/secret", chat: "1"}`:                          "is not for a channel of type ntfy",
		`{name: a, type: webhook, url: "secret"}`:                                            "alerts.channels[0].url",
		`{name: a, type: mqtt, topic: "a/#"}`:                                                "must be an MQTT topic",
		`{name: a, type: email, server: mail, from: x, to: y}`:                               "host:port",
		`{name: a, type: email, server: "m:25", from: "a@b", to: "a@b", encryption: maybe}`:  "must be starttls, tls or none",
		`{name: a, type: webhook, url: "https://h/x", secret: secret, secret_file: nowhere}`: "both secret and secret_file",
	} {
		_, err := loadAlerts(t, "alerts:\n  channels: ["+text+"]\n")
		require.ErrorContains(t, err, want, text)
		assert.NotContains(t, err.Error(), "https://n/secret")
	}
	for text, want := range map[string]string{
		"quiet_hours: \"22-7\"": "alerts.quiet_hours", "quiet_hours: \"07:00-07:00\"": "begins when it ends", "page_url: plants": "alerts.page_url",
		"heartbeat_url: secret": "alerts.heartbeat_url", "cooldown: 90d": "alerts.cooldown", "repeat: 1s": "0 (never)",
	} {
		_, err := loadAlerts(t, "alerts:\n  "+text+"\n")
		require.ErrorContains(t, err, want, text)
	}
}
