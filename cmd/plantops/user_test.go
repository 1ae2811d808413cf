package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/certs/certstest"
	"github.com/plantops/plantops/store"
)

const userPassword = "the garden gate"

// addUser makes an account through the control socket.
func (r *running) addUser(t *testing.T, name, role string, own rules) {
	t.Helper()
	granted, err := own.with(role)
	require.NoError(t, err)
	require.NoError(t, granted.check(name))
	require.NoError(t, r.control.AddUser(context.Background(), store.NewUser{Name: name, Publish: granted.Publish,
		Subscribe: granted.Subscribe, Admin: granted.Admin, Password: userPassword}))
}

// outside is the running server as the clients of brokertest see it.
func (r *running) outside(t *testing.T) *brokertest.Broker {
	t.Helper()
	reach, err := r.control.Contact(context.Background())
	require.NoError(t, err)
	return &brokertest.Broker{Broker: r.running.Broker, CA: certstest.Trust(t, reach.CA)}
}

func TestRolesDoWhatTheySayOnEveryListener(t *testing.T) {
	r := startServer(t)
	outside := r.outside(t)
	bed := r.addDevice(t, "bed-1")
	r.addUser(t, "vera", "viewer", rules{})
	r.addUser(t, "otto", "operator", rules{})
	r.addUser(t, "root", "admin", rules{})
	r.addUser(t, "hub", "", rules{Publish: []string{"home/%u/%c/#"}, Subscribe: []string{"home/%u/%c/#", "home/all"}})
	const (
		refused   = 0x87
		telemetry = "devices/bed-1/telemetry"
		command   = "devices/bed-1/commands/pump"
	)
	for _, kind := range brokertest.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			dial := func(name string) *brokertest.Client {
				return brokertest.Dial(t, outside, kind, brokertest.Login{User: name, Password: userPassword, Version: 5, ClientID: name + "-" + string(kind)})
			}
			device := brokertest.Dial(t, outside, kind, brokertest.Login{User: "bed-1", Password: bed, Version: 5})
			require.Equal(t, byte(1), device.Subscribe("devices/bed-1/commands/#", 1))

			viewer := dial("vera")
			assert.Equal(t, byte(1), viewer.Subscribe("devices/#", 1))
			assert.Equal(t, byte(refused), viewer.Subscribe("#", 1))
			assert.Equal(t, byte(refused), viewer.Publish(command, "on", 1))
			assert.Equal(t, byte(refused), viewer.Publish(telemetry, "{}", 1))
			require.Equal(t, byte(0), device.Publish(telemetry, `{"temperature":21}`, 1))
			assert.Equal(t, telemetry, viewer.Receive().TopicName)

			operator := dial("otto")
			assert.Equal(t, byte(0), operator.Publish(command, "on", 1))
			assert.Equal(t, "on", string(device.Receive().Payload))
			assert.Equal(t, byte(refused), operator.Publish(telemetry, "{}", 1))
			assert.Equal(t, byte(1), operator.Subscribe("devices/+/telemetry", 1))
			assert.Equal(t, byte(refused), operator.Subscribe("$SYS/#", 1))

			admin := dial("root")
			assert.Equal(t, byte(0), admin.Subscribe("$SYS/#", 0))
			assert.True(t, strings.HasPrefix(admin.Receive().TopicName, "$SYS/broker/"))
			assert.Equal(t, byte(0), admin.Publish("home/lights", "off", 1))

			own := "home/hub/hub-" + string(kind)
			hub := dial("hub")
			assert.Equal(t, byte(1), hub.Subscribe(own+"/state", 1))
			assert.Equal(t, byte(1), hub.Subscribe("home/all", 1))
			assert.Equal(t, byte(0), hub.Publish(own+"/state", "on", 1))
			assert.Equal(t, "on", string(hub.Receive().Payload))
			assert.Equal(t, byte(refused), hub.Publish("home/hub/another/state", "on", 1))
			assert.Equal(t, byte(refused), hub.Subscribe("home/hub/+/state", 1))

			_, answer := brokertest.TryDial(t, outside, kind, brokertest.Login{User: "vera", Password: "the garden wall", Version: 5})
			assert.Equal(t, byte(0x86), answer.ReasonCode)
		})
	}
}

func TestUserIsDisconnectedAtOnceWhenItsPasswordChangesOrItIsRemoved(t *testing.T) {
	r := startServer(t)
	outside := r.outside(t)
	var took []time.Duration
	for name, end := range map[string]func(name string) error{
		"changed": func(name string) error {
			return r.control.SetPassword(context.Background(), name, "the garden wall")
		},
		"removed": func(name string) error { return r.control.RemoveUser(context.Background(), name) },
	} {
		r.addUser(t, name, "viewer", rules{})
		for _, kind := range brokertest.Kinds {
			login := brokertest.Login{User: name, Password: userPassword, Version: 5}
			user := brokertest.Dial(t, outside, kind, login)
			require.Equal(t, byte(1), user.Subscribe("devices/#", 1))
			began := time.Now()
			require.NoError(t, end(name), "%s over %s", name, kind)
			assert.Equal(t, byte(0x98), user.AwaitClosed(), "administrative action, %s over %s", name, kind)
			took = append(took, time.Since(began))
			_, answer := brokertest.TryDial(t, outside, kind, login)
			assert.Equal(t, byte(0x86), answer.ReasonCode, "the old password of the user that was %s", name)

			if name == "removed" {
				r.addUser(t, name, "viewer", rules{})
			} else {
				require.NoError(t, r.control.SetPassword(context.Background(), name, userPassword))
			}
		}
	}
	assert.Less(t, slices.Min(took), time.Second, "each time longer than a busy machine needs: %v", took)
	assert.NotContains(t, r.log.String(), userPassword)
}

func TestErrorsAboutUsersKeepTheirIdentityOverTheSocket(t *testing.T) {
	r := startServer(t)
	valid := store.NewUser{Name: "anna", Subscribe: []string{"devices/#"}, Password: userPassword}
	require.NoError(t, r.control.AddUser(context.Background(), valid))
	for name, c := range map[string]struct {
		change func(*store.NewUser)
		want   error
		code   int
	}{
		"name taken":     {func(*store.NewUser) {}, store.ErrExists, exitFailed},
		"invalid name":   {func(u *store.NewUser) { u.Name = "a/b" }, store.ErrInvalidID, exitUsage},
		"invalid filter": {func(u *store.NewUser) { u.Publish = []string{"a/#/b"} }, store.ErrInvalidFilter, exitUsage},
		"short password": {func(u *store.NewUser) { u.Name, u.Password = "bob", "garden" }, store.ErrInvalidPassword, exitUsage},
	} {
		u := valid
		c.change(&u)
		there, here := r.control.AddUser(context.Background(), u), r.server.AddUser(context.Background(), u)
		assert.ErrorIs(t, there, c.want, name)
		assert.EqualError(t, there, here.Error(), name)
		assert.Equal(t, c.code, exitCode(there), name)
	}
}
