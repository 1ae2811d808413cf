package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// What was sent and not acknowledged is sent again at a reconnect and at no other time: in its order, with its id and DUP,
// what was received by then as PUBREL; then what waits, with ids of its own and without DUP.
func TestWhatIsNotAcknowledgedIsSentAgain(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		login := rawmqtt.Login{ClientID: "one", Version: version, Resume: true}
		w := admitted(t, b, login)
		w.subscribe(version, 2, "a")
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		var under []rawmqtt.Packet
		for i := range 6 {
			sender.publish(version, []byte{qos1, qos2}[i%2], "a", 1, fmt.Sprint(i))
			p := w.next(rawmqtt.Publish)
			assert.Zero(t, p.Flags&flagDUP)
			under = append(under, p)
		}
		ids := map[uint16]bool{}
		for _, p := range under {
			ids[p.ID] = true
		}
		assert.Len(t, ids, 6, "an id is not used twice")
		w.send(rawmqtt.EncodeAck(rawmqtt.Puback, under[2].ID), rawmqtt.EncodeAck(rawmqtt.Pubrec, under[3].ID))
		require.Equal(t, under[3].ID, w.next(rawmqtt.Pubrel).ID)
		w.nothing()

		w = admitted(t, b, login)
		for range 2 { // again, as often as it takes
			var resent []uint16
			for range 5 {
				p, err := rawmqtt.Read(w.r)
				require.NoError(t, err)
				if p.Kind == rawmqtt.Pubrel {
					assert.Equal(t, under[3].ID, p.ID, "it has been received")
					continue
				}
				require.Equal(t, byte(rawmqtt.Publish), p.Kind)
				resent = append(resent, p.ID)
				was := under[slices.IndexFunc(under, func(u rawmqtt.Packet) bool { return u.ID == p.ID })]
				assert.Equal(t, was.Flags|flagDUP, p.Flags)
				assert.Equal(t, was.Body, p.Body)
			}
			assert.Equal(t, []uint16{under[0].ID, under[1].ID, under[4].ID, under[5].ID}, resent, "in their order")
			w.nothing()
			w = admitted(t, b, login)
		}
	})
}

func TestMessagesWaitForWhoIsAway(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		login := rawmqtt.Login{ClientID: "one", Version: version, Resume: true}
		w := admitted(t, b, login)
		w.subscribe(version, 2, "a/#")
		w.send([]byte{rawmqtt.Disconnect << 4, 0})
		w.rest()
		require.Eventually(t, func() bool { return b.Stats().Connected == 0 }, brokertest.Patience, time.Millisecond)
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		for i := range 20 { // in the order of each publisher, for each topic and QoS
			sender.publish(version, []byte{qos1, qos2}[i%2], "a/b", 1, fmt.Sprint(i))
		}
		w = admitted(t, b, login)
		next := []int{0, 1}
		for completed := 0; completed < 20; {
			p, err := rawmqtt.Read(w.r)
			require.NoError(t, err)
			switch p.Kind {
			case rawmqtt.Pubrel:
				w.send(rawmqtt.EncodeAck(rawmqtt.Pubcomp, p.ID))
				completed++
			case rawmqtt.Publish:
				of := int(p.QoS()) - 1
				_, _, payload := content(version, p)
				assert.Equal(t, fmt.Sprint(next[of]), payload)
				assert.Zero(t, p.Flags&flagDUP)
				next[of] += 2
				w.send(rawmqtt.EncodeAck([]byte{rawmqtt.Puback, rawmqtt.Pubrec}[of], p.ID))
				completed += 1 - of
			}
		}
		w.nothing()

		login.Resume = false
		admitted(t, b, login).send([]byte{rawmqtt.Disconnect << 4, 0}) // ends the session, and its own with the connection
		sender.publish(version, qos1, "a/b", 2, "for nobody")
		login.Resume = true
		admitted(t, b, login).nothing()
	})
}

func TestARefusedMessageIsNotSentAgain(t *testing.T) {
	b := brokertest.Start(t)
	login := rawmqtt.Login{ClientID: "one", Resume: true}
	w := admitted(t, b, login)
	w.subscribe(5, 2, "a")
	sender := admitted(t, b, rawmqtt.Login{ClientID: "sender"})
	for flags, kind := range map[byte]byte{qos1: rawmqtt.Puback, qos2: rawmqtt.Pubrec} {
		sender.publish(5, flags, "a", 1, "x")
		p := w.next(rawmqtt.Publish)
		w.send(rawmqtt.Encode(kind<<4, []byte{byte(p.ID >> 8), byte(p.ID), 0x83}))
		w.nothing()
	}
	admitted(t, b, login).nothing()
}

func TestAWillIsPublishedOnceAsItWasLeft(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		watcher := admitted(t, b, rawmqtt.Login{ClientID: "watcher", Version: version})
		watcher.subscribe(version, 2, "will/#")
		watcher.nothing() // the search for retained messages is over
		leave := func(flags byte, end func(w *wire)) {
			user, secret := b.Backend.Username, b.Backend.Password
			w := plug(t, b, connect(version, 0xc6|flags, "one", "will/topic", "last words", user, secret))
			require.Zero(t, w.next(rawmqtt.Connack).Reason)
			end(w)
			w.rest()
		}
		breaks := func(w *wire) { w.send([]byte{0, 0}) }
		for qos := range byte(3) {
			for _, retain := range []byte{0, 0x20} {
				leave(qos<<3|retain, breaks)
				p, topic, _, payload := watcher.take(version)
				assert.Equal(t, []any{"will/topic", "last words", qos, byte(0)}, []any{topic, payload, p.QoS(), p.Flags & (flagRetain | flagDUP)})
				reader := admitted(t, b, rawmqtt.Login{ClientID: "reader", Version: version})
				reader.subscribe(version, 2, "will/#")
				if retain != 0 {
					p, _, _, _ = reader.take(version)
					assert.Equal(t, qos, p.QoS())
					reader.unsubscribe(version, 1, "will/#")
					reader.publish(version, qos1|flagRetain, "will/topic", 9, "")
					watcher.take(version)
				} else {
					reader.nothing()
				}
			}
		}
		for name, end := range map[string]func(w *wire){
			"the network fails": func(w *wire) { _ = w.conn.Close() },
			"it is taken over": func(w *wire) {
				admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version}).send([]byte{rawmqtt.Disconnect << 4, 0})
			},
		} {
			user, secret := b.Backend.Username, b.Backend.Password
			w := plug(t, b, connect(version, 0xc6, "one", "will/topic", name, user, secret))
			require.Zero(t, w.next(rawmqtt.Connack).Reason)
			end(w)
			_, _, _, payload := watcher.take(version)
			assert.Equal(t, name, payload)
		}
		leave(0, func(w *wire) { w.send([]byte{rawmqtt.Disconnect << 4, 0}) })
		watcher.nothing()
		if version == 5 {
			leave(0, func(w *wire) { w.send([]byte{rawmqtt.Disconnect << 4, 1, 0}) })
			watcher.nothing()
			leave(0, func(w *wire) { w.send([]byte{rawmqtt.Disconnect << 4, 1, 4}) }) // with the will
			watcher.take(version)
		}
		// No will, none is published; and each of the others came once.
		w := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version})
		breaks(w)
		w.rest()
		watcher.nothing()
	})
}
