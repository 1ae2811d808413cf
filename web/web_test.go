package web

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/web/gate"
)

// other is an address of this machine that is not the loopback; "" when there is none.
func other(t *testing.T) string {
	all, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return ""
}

func TestABasePathStandsBeforeEverything(t *testing.T) {
	s := open(t, func(o *Options, g *gate.Options) { o.BasePath, g.BasePath = "/plants", "/plants" }, who).run()
	b := s.browser()
	answer, _ := b.do(http.MethodGet, "/plants", "")
	assert.Equal(t, "/plants/", answer.Header.Get("Location"))
	_, text := b.do(http.MethodGet, "/plants/", "")
	assert.Contains(t, text, `action="/plants/login"`)
	answer, _ = b.do(http.MethodPost, "/plants/login", "name=anna&password="+strings.ReplaceAll(password, " ", "+"), "Content-Type: application/x-www-form-urlencoded")
	require.Equal(t, http.StatusSeeOther, answer.StatusCode)
	assert.Equal(t, "/plants/", answer.Header.Get("Location"))
	assert.Contains(t, answer.Header.Get("Set-Cookie"), "; Path=/plants;")
	_, text = b.do(http.MethodGet, "/plants/who", "")
	assert.Contains(t, text, "anna admin")
	_, text = b.do(http.MethodGet, "/plants/", "")
	assert.Contains(t, text, "logged in as anna (admin)")
	path, _, err := s.gate.Link("")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(path, "/plants/login/once?"), path)
	for _, outside := range []string{"/", "/who", "/plantsx/who", "/login"} {
		answer, _ = b.do(http.MethodGet, outside, "")
		assert.Equal(t, http.StatusNotFound, answer.StatusCode, outside)
	}
}

func TestAFaultEndsOneRequestOnly(t *testing.T) {
	s := open(t, nil, who, Mount{Prefix: "/fault", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a fault") })},
		Mount{Prefix: "/late", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a part") // the test looks at what comes
			panic("a fault")
		})}).run()
	b := s.browser()
	answer, text := b.do(http.MethodGet, "/fault", "")
	assert.Equal(t, http.StatusInternalServerError, answer.StatusCode)
	assert.NotContains(t, text, "goroutine")
	assert.Contains(t, b.who(), "nobody")

	_, err := b.Get(s.url("/late"))
	if err == nil {
		response, _ := b.Get(s.url("/late"))
		_, err = io.ReadAll(response.Body)
	}
	assert.Error(t, err, "nobody takes a part for the whole")
}

// What is being answered may end, a stream is ended: it would go on for ever.
func TestAStopWaitsForAnswersAndEndsStreams(t *testing.T) {
	streaming, answering, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := open(t, nil, Mount{Prefix: "/stream", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.NoError(t, http.NewResponseController(w).SetWriteDeadline(time.Time{}))
		require.NoError(t, http.NewResponseController(w).Flush())
		close(streaming)
		<-r.Context().Done()
	})}, Mount{Prefix: "/answer", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(answering)
		<-goOn
		_, _ = io.WriteString(w, "whole")
	})}).run()
	b := s.browser()
	ended, answered := make(chan error, 1), make(chan string, 1)
	get := func(path string) (string, error) {
		answer, err := b.Get(s.url(path))
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return string(text), err
	}
	go func() {
		_, err := get("/stream")
		ended <- err
	}()
	go func() {
		text, _ := get("/answer")
		answered <- text
	}()
	<-streaming
	<-answering
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	require.Eventually(t, func() bool { // nobody new is let in
		conn, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, patience, time.Millisecond)
	close(goOn)
	assert.Equal(t, "whole", <-answered)
	require.NoError(t, <-stopped)
	<-ended
}

func TestOldFirmwareRegistersWhileTheWindowIsOpen(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	s := open(t, func(o *Options, _ *gate.Options) { o.RegistrationAddress = address },
		Mount{Prefix: "/api", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, known := gate.Of(r.Context())
			assert.False(t, known)
			body, _ := io.ReadAll(r.Body)
			_, _ = io.WriteString(w, "registered "+string(body))
		})}).run()
	post := func(path string, headers ...string) (int, string, error) {
		r, err := http.NewRequest(http.MethodPost, "http://"+address+path, strings.NewReader("{}"))
		require.NoError(t, err)
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
			if name == "Host" {
				r.Host = value
			}
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text), err
	}
	_, _, err = post(registrationPath)
	require.Error(t, err, "nobody listens")
	s.browser().do(http.MethodGet, "/", "") // it serves
	_, err = s.gate.Pairing.Open(time.Minute)
	require.NoError(t, err)
	status, text, err := post(registrationPath)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "registered {}", text)
	for _, path := range []string{"/", "/login", "/api/devices", "/api/devices/register/x", "/ca.crt"} {
		status, _, err = post(path)
		require.NoError(t, err)
		assert.Equal(t, http.StatusNotFound, status, path)
	}
	for header, want := range map[string]int{"Host: evil.example": http.StatusMisdirectedRequest, "Origin: http://evil.example": http.StatusForbidden} {
		status, _, err = post(registrationPath, header)
		require.NoError(t, err)
		assert.Equal(t, want, status, header)
	}
	s.gate.Pairing.Close()
	require.Eventually(t, func() bool {
		_, _, err := post(registrationPath)
		return err != nil
	}, patience, time.Millisecond)
	taken, err := net.Listen("tcp", address)
	require.NoError(t, err, "the port is given back")
	defer taken.Close()
	_, err = s.gate.Pairing.Open(time.Minute)
	require.ErrorContains(t, err, "address already in use")
	assert.False(t, s.gate.Pairing.IsOpen(), "and nobody thinks that devices can register")
}

func TestAPortThatIsTakenIsSaid(t *testing.T) {
	s := open(t, nil)
	defer s.Close()
	_, err := New(Options{Address: s.Addr().String(), Gate: s.gate, Log: s.options.Log})
	require.ErrorContains(t, err, "address already in use")
	_, err = New(Options{Address: "127.0.0.1:0", RegistrationAddress: s.Addr().String(), Gate: s.gate, Log: s.options.Log})
	require.ErrorContains(t, err, "listen for registrations")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}

func TestOneAddressHasNotAllConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer inner.Close()
	l := limit(inner, nil)
	stranger := &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}
	neighbour := &net.TCPAddr{IP: net.ParseIP("2001:db8::2"), Port: 1}
	for range maxConnectionsPerAddress {
		assert.True(t, l.enter(l.place(stranger)))
	}
	assert.False(t, l.enter(l.place(stranger)))
	assert.False(t, l.enter(l.place(neighbour)), "it is the same household")
	home := &net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 1}
	for range maxConnections - maxConnectionsPerAddress {
		assert.True(t, l.enter(l.place(home)))
	}
	assert.False(t, l.enter(l.place(home)))
	place, _ := l.place(home)
	l.leave(place)

	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	first, err := net.Dial("tcp", inner.Addr().String())
	require.NoError(t, err)
	defer first.Close()
	held := <-accepted
	second, err := net.Dial("tcp", inner.Addr().String())
	require.NoError(t, err)
	defer second.Close()
	_, err = second.Read(make([]byte, 1))
	require.Error(t, err, "it is closed at once")
	require.NoError(t, held.Close())
	_ = held.Close() // it counts once
	third, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", inner.Addr().String())
	require.NoError(t, err)
	defer third.Close()
	require.NoError(t, (<-accepted).Close())
}
