package doctor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/control"
)

// local is where this machine reaches a listener.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

func (p Patient) checkListener(ctx context.Context, name, address string, reach control.Contact, account, password string) Finding {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	began := time.Now()
	var err error
	switch name {
	case "tls":
		var secure *tls.Config
		if secure, err = p.ClientTLS(reach, account); err == nil {
			err = p.Send(ctx, local(address), secure, account, password, "doctor/"+account)
		}
	case "websocket":
		err = overWebsocket(ctx, local(address), account, password)
	default:
		err = p.Send(ctx, local(address), nil, account, password, "doctor/"+account)
	}
	if err == nil {
		return Finding{Name: "listener " + name, State: OK, Found: fmt.Sprintf("%s lets a client in and answers in %s", address, round(time.Since(began)))}
	}
	repair := "restart the server: sudo systemctl restart plantops; the log says what it refused"
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		repair = "the server shows a certificate of another CA than the one it hands out: plantops certs show; restart it after a change of files"
	case errors.As(err, &wrongName):
		repair = "add the name to certs.extra_names (PLANTOPS_CERTS_EXTRA_NAMES) and restart the server"
	}
	return Finding{"listener " + name, Fail, fmt.Sprintf("%s: %v", address, err), repair}
}

// checkNames verifies chain and name of the certificate as a device does that calls this machine by each of its names.
func (p Patient) checkNames(ctx context.Context, r *Report, address string, reach control.Contact, account string) {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	secure, err := p.ClientTLS(reach, account)
	if err != nil {
		r.Add(Finding{"TLS chain", Fail, err.Error(), `make one with "plantops certs init"`})
		return
	}
	// The chain first, by itself: crypto/tls would say only the first thing that is wrong.
	var shown []*x509.Certificate
	secure.InsecureSkipVerify = true //nolint:gosec // it is verified below, name by name
	secure.VerifyConnection = func(s tls.ConnectionState) error {
		shown = s.PeerCertificates
		return nil
	}
	conn, err := (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", address)
	if err != nil {
		r.Add(Finding{"TLS chain", Fail, err.Error(), "restart the server: sudo systemctl restart plantops"})
		return
	}
	conn.Close()
	if len(shown) == 0 {
		r.Add(Finding{"TLS chain", Fail, "the server shows no certificate", `make one with "plantops certs renew"`})
		return
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	if _, err := shown[0].Verify(x509.VerifyOptions{Roots: secure.RootCAs, Intermediates: between, CurrentTime: p.Now()}); err != nil {
		r.Add(Finding{"TLS chain", Fail, fmt.Sprintf("a device that trusts the CA would refuse the server: %v", err),
			"plantops certs show says until when each is valid; plantops certs renew makes the server's anew. Is the clock right?"})
	} else {
		r.Add(Finding{Name: "TLS chain", State: OK, Found: fmt.Sprintf("verifies with the CA that devices get, until %s", shown[0].NotAfter.Format(time.DateOnly))})
	}
	var covered, missing []string
	for _, name := range p.Names {
		if shown[0].VerifyHostname(name) == nil {
			covered = append(covered, name)
		} else {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		r.Add(Finding{"TLS names", Fail, "the certificate does not cover " + strings.Join(missing, ", ") + ", so devices that use it refuse the server",
			"add it to certs.extra_names (PLANTOPS_CERTS_EXTRA_NAMES) and restart the server"})
	} else {
		r.Add(Finding{Name: "TLS names", State: OK, Found: "the certificate covers " + strings.Join(covered, ", ")})
	}
	r.Add(rsaFinding(reach.Servers))
}

// rsaFinding says whether clients find a certificate that know no ECDSA. It does not try: the server would count a refusal.
func rsaFinding(servers string) Finding {
	for block, rest := pem.Decode([]byte(servers)); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && c.PublicKeyAlgorithm == x509.RSA {
			return Finding{Name: "TLS for old clients", State: OK, Found: "there is an RSA certificate too"}
		}
	}
	return Finding{"TLS for old clients", Warn, "there is no RSA certificate, so devices that know RSA alone (Tasmota by default) find no shared cipher",
		"needed for such devices only; a server of our own authority that has just started makes one within a minute, where it can"}
}

const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455, 1.3

// overWebsocket logs in with MQTT 3.1.1 over websocket, sub-protocol mqtt, and says goodbye.
func overWebsocket(ctx context.Context, address, account, password string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	key := base64.StdEncoding.EncodeToString(nonce)
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", address, key); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		return fmt.Errorf("read the answer to the upgrade: %w", err)
	}
	sum := sha1.Sum([]byte(key + websocketGUID))
	switch {
	case answer.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("the upgrade to websocket is answered with %s", answer.Status)
	case answer.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return errors.New("the upgrade to websocket is answered wrongly")
	case answer.Header.Get("Sec-WebSocket-Protocol") != "mqtt":
		return errors.New("the server does not speak the sub-protocol mqtt")
	}
	if _, err := conn.Write(frame(connectPacket(account, password))); err != nil {
		return err
	}
	head := make([]byte, 6) // of a frame, and CONNACK
	if _, err := io.ReadFull(in, head); err != nil {
		return fmt.Errorf("read CONNACK: %w", err)
	}
	if head[0] != 0x82 || head[1] != 4 || head[2] != 0x20 || head[3] != 2 {
		return fmt.Errorf("the answer to CONNECT is no CONNACK: % X", head)
	}
	if head[5] != 0 {
		return fmt.Errorf("broker refused the connection: return code %d", head[5])
	}
	_, err = conn.Write(frame([]byte{0xE0, 0}))
	return err
}

// connectPacket is a CONNECT of MQTT 3.1.1 with a clean session.
func connectPacket(account, password string) []byte {
	body := []byte("\x00\x04MQTT\x04\xC2\x00\x1E")
	for _, text := range []string{account, account, password} {
		body = binary.BigEndian.AppendUint16(body, uint16(len(text)))
		body = append(body, text...)
	}
	return append([]byte{0x10, byte(len(body))}, body...) // all of them together are shorter than 128 bytes
}

// frame is one binary message of a client: masked, as clients must.
func frame(payload []byte) []byte {
	mask := make([]byte, 4)
	_, _ = rand.Read(mask)
	out := append([]byte{0x82, 0x80 | byte(len(payload))}, mask...) // shorter than 126 bytes
	masked := bytes.Clone(payload)
	for i := range masked {
		masked[i] ^= mask[i%4]
	}
	return slices.Concat(out, masked)
}

const (
	expiresSoon = 30 * 24 * time.Hour
	day         = 24 * time.Hour
)

// checkCertificates looks at the dates: as the server tells them or, without one, in the files.
func (p Patient) checkCertificates(r *Report, status *control.Status) {
	type dated struct {
		path     string
		from, to time.Time
	}
	var all []dated
	if status != nil {
		for _, c := range status.Certificates {
			all = append(all, dated{c.Path, c.NotBefore, c.NotAfter})
		}
	} else {
		for _, name := range []string{"ca.crt", "server.crt"} {
			path := filepath.Join(p.CertsDir, name)
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				r.Add(Finding{"certificates", Fail, err.Error(), "run this as the user of the server: sudo -u plantops plantops doctor"})
				return
			}
			block, _ := pem.Decode(text)
			if block == nil {
				r.Add(Finding{"certificates", Fail, path + " is no certificate in PEM form", `restore it from a backup; "plantops certs init --force" makes new ones, and every device must be flashed again`})
				return
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				r.Add(Finding{"certificates", Fail, fmt.Sprintf("%s: %v", path, err), `restore it from a backup; "plantops certs init --force" makes new ones, and every device must be flashed again`})
				return
			}
			all = append(all, dated{path, c.NotBefore, c.NotAfter})
		}
	}
	if len(all) == 0 {
		r.Add(Finding{Name: "certificates", State: Skip, Found: "there are none"})
		return
	}
	now, first := p.Now(), all[0]
	for _, c := range all {
		if c.to.Before(first.to) {
			first = c
		}
		switch {
		case now.After(c.to):
			r.Add(Finding{"certificates", Fail, fmt.Sprintf("%s is expired since %s", c.path, c.to.Format(time.DateOnly)),
				"is the clock right? The running server renews its own; one from outside must be replaced by hand"})
			return
		case now.Before(c.from):
			r.Add(Finding{"certificates", Fail, fmt.Sprintf("%s is valid from %s on", c.path, c.from.Format(time.DateOnly)), "set the clock: sudo timedatectl set-ntp true"})
			return
		}
	}
	left := int(first.to.Sub(now) / day)
	if first.to.Sub(now) < expiresSoon {
		r.Add(Finding{"certificates", Warn, fmt.Sprintf("%s ends in %d days", first.path, left), "the running server renews its own long before; one from outside must be replaced by hand"})
		return
	}
	r.Add(Finding{Name: "certificates", State: OK, Found: fmt.Sprintf("valid; the first to end is %s in %d days", first.path, left)})
}
