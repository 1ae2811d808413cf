package broker_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/broker/journal/journaltest"
)

// aliasMaximum is the property of a CONNECT.
func aliasMaximum(n uint16) string { return string([]byte{0x22, byte(n >> 8), byte(n)}) }

func TestAClientThatWantsItIsSentTopicsByNumber(t *testing.T) {
	for _, c := range []struct {
		properties string
		want       int
	}{{"", 0}, {aliasMaximum(0), 0}, {aliasMaximum(1), 1}, {aliasMaximum(16), 16}, {aliasMaximum(65535), 16}} {
		b := brokertest.Start(t)
		w := admitted(t, b, rawmqtt.Login{ClientID: "got", Properties: []byte(c.properties)})
		w.subscribe(5, 2, "home/#")
		other := admitted(t, b, rawmqtt.Login{ClientID: "other"})
		other.subscribe(5, 2, "home/#")
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
		for n := range 3 * 18 {
			topic, qos := fmt.Sprint("home/", n%18), byte(n%3)
			payload := strings.Repeat("x", n%2*5000) // with a payload that is shared between connections, and one that is not
			sender.publish(5, qos<<1, topic, uint16(n+1), payload)
			p, got, properties, text := w.take(5)
			if assert.Equal(t, payload, text); n%18 >= c.want { // [MQTT-3.1.2-26, -27]
				assert.Equal(t, []string{topic, ""}, []string{got, properties}, "with %q", c.properties)
			} else {
				assert.Equal(t, "\x23\x00"+string(rune(n%18+1)), properties)
				assert.Equal(t, map[bool]string{true: topic}[n < 18], got, "the name comes once")
			}
			assert.Equal(t, qos, p.QoS())
			_, got, properties, text = other.take(5)
			assert.Equal(t, []string{topic, "", payload}, []string{got, properties, text}, "numbers are nobody else's affair")
		}
	}
}

func TestAClientThatKnowsATopicIsSentMoreOfIt(t *testing.T) {
	b := brokertest.Start(t)
	w := admitted(t, b, rawmqtt.Login{ClientID: "got", Properties: []byte(aliasMaximum(1) + "\x27\x00\x00\x00\x32")})
	w.subscribe(5, 0, "home/#")
	sender := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
	topic := "home/" + strings.Repeat("x", 30)
	for _, n := range []int{43, 1, 43, 42} { // 50 bytes are 2, 2 of an empty topic, 1 and 3 of properties, and 42
		sender.publish(5, 0, topic, 0, strings.Repeat("y", n))
	}
	for _, n := range []int{1, 42} {
		p, _, _, payload := w.take(5)
		assert.Len(t, payload, n)
		assert.LessOrEqual(t, 2+len(p.Body), 50)
	}
	w.nothing()
}

// number is the alias in the properties of a PUBLISH that has no others; 0: none.
func number(t testing.TB, properties string) byte {
	if properties == "" {
		return 0
	}
	require.Len(t, properties, 3)
	require.Equal(t, "\x23\x00", properties[:2])
	return properties[2]
}

// A subscriber comes and goes, its messages are sent again, wait on disk and for it, the broker crashes: each packet says whose it is.
func TestNumbersNeverNameAnotherTopic(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			followNumbers(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func followNumbers(t *testing.T, dice *rand.Rand) {
	var names map[byte]string
	var w *wire
	s := journaltest.New()
	b := keeping(t, s, nil)
	sender := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
	missing, bare := map[string]bool{}, 0
	plugIn := func() {
		if w != nil {
			_ = w.conn.Close()
		}
		properties := "\x11\x00\x00\x0e\x10" + aliasMaximum([]uint16{0, 1, 3, 16, 100}[dice.IntN(5)])
		names, w = map[byte]string{}, admitted(t, b, rawmqtt.Login{ClientID: "reader", Resume: true, Properties: []byte(properties)})
	}
	// read takes what has come, and acknowledges it, or some of it.
	read := func(all bool) {
		w.send([]byte{rawmqtt.Pingreq << 4, 0})
		for {
			p, err := rawmqtt.Read(w.r)
			require.NoError(t, err)
			switch p.Kind {
			case rawmqtt.Pingresp:
				return
			case rawmqtt.Pubrel:
				w.send(rawmqtt.EncodeAck(rawmqtt.Pubcomp, p.ID))
			case rawmqtt.Publish:
				topic, properties, payload := content(5, p)
				switch n := number(t, properties); {
				case topic == "":
					bare++
					topic = names[n]
				case n > 0:
					names[n] = topic
				}
				text := strings.TrimRight(payload, " ")
				require.Equal(t, topic, text[:strings.LastIndexByte(text, ' ')], "the topic of %q", text)
				if !all && dice.IntN(3) == 0 {
					break
				}
				if delete(missing, text); p.QoS() > 0 {
					w.send(rawmqtt.EncodeAck([]byte{0, rawmqtt.Puback, rawmqtt.Pubrec}[p.QoS()], p.ID))
				}
			}
		}
	}
	plugIn()
	w.subscribe(5, 2, "home/#")
	for n := range 300 {
		switch dice.IntN(20) {
		case 0:
			plugIn()
		case 1, 2, 3:
			read(dice.IntN(4) == 0)
		case 4:
			if dice.IntN(10) == 0 {
				s = s.Crash()
				_, _ = sender.conn.Close(), w.conn.Close() // Close gives them a second to go
				require.NoError(t, b.Close())
				b = keeping(t, s, nil)
				sender = admitted(t, b, rawmqtt.Login{ClientID: "sender"})
				plugIn()
			}
		default:
			topic, qos := "home/"+strings.Repeat("y", 1+dice.IntN(24)), byte(dice.IntN(3))
			text := fmt.Sprint(topic, " ", n)
			if qos > 0 {
				missing[text] = true
			}
			sender.publish(5, qos<<1, topic, uint16(n+1), text+strings.Repeat(" ", dice.IntN(2)*5000))
		}
	}
	for plugIn(); len(missing) > 0; {
		read(true) // its patience is the connection's
	}
	assert.Positive(t, bare)
}
