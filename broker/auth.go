package broker

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/asn1"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/topic"
)

// everything is what the backend may publish and read.
var everything = []string{"#"}

// admit lets a client in or says why not. When it returns nil the client owns its client id and has passed the gate.
func (h *hook) admit(l *clientLink, cl *mqtt.Client, pk packets.Packet) error {
	keepalive := normalise(cl)
	asks := func(u packets.UserProperty) bool { return u.Key == h.name.Key }
	l.asksName = h.name.Key != "" && slices.ContainsFunc(pk.Properties.User, asks)
	if pk.Connect.WillFlag {
		l.willBytes = int32(pk.FixedHeader.Remaining)
	}
	for {
		evictions := h.sessions.evictionCount()
		account, err := h.identify(l, pk)
		if err != nil {
			return err
		}
		l.account, l.rights, l.since = account.Name, access.RightsOf(account, l.id), h.now().UnixNano()
		l.rights.Internal = h.isIngest(l)
		if err := h.checkWill(l, pk); err != nil {
			return err
		}
		if err := h.sessions.claim(l, evictions, h.isIngest(l)); err == nil {
			break
		} else if err != errEvicted {
			return err
		}
	}
	if h.certificateRevoked(l) { // since identify looked: EndRevoked has not seen l if it came before claim
		return refusal.CertificateRevoked
	}
	if !h.isIngest(l) {
		l.PauseDeadline()
		err := h.gate.pass(l.Done(), h.gateWait)
		l.ResumeDeadline()
		if err != nil {
			return err
		}
	}
	l.Admitted(l.account)
	l.SetReadTimeout(keepalive + keepalive/2) // [MQTT-3.1.2-22]
	return nil
}

// identify finds out who the client is.
func (h *hook) identify(l *clientLink, pk packets.Packet) (access.Account, error) {
	user, clientID := string(pk.Connect.Username), l.id
	switch {
	case pk.Properties.AuthenticationMethod != "":
		return access.Account{}, refusal.UnknownAuthMethod
	case user == "":
		return access.Account{}, refusal.Anonymous
	case !access.ValidName(user, access.MaxUserBytes):
		return access.Account{}, refusal.InvalidUserName
	case !access.ValidClientID(clientID):
		return access.Account{}, refusal.InvalidClientID
	case len(pk.Connect.Password) == 0:
		return access.Account{}, refusal.NoPassword
	}
	account, err := h.checkPassword(l, user, pk.Connect.Password)
	if err != nil {
		return access.Account{}, err
	}
	if !account.MayCallItself(clientID) {
		return access.Account{}, refusal.InvalidClientID
	}
	if !h.certificateFits(l, user) {
		return access.Account{}, refusal.ForeignCertificate
	}
	if h.certificateRevoked(l) {
		return access.Account{}, refusal.CertificateRevoked
	}
	if !h.mayUseClientID(user, clientID) {
		return access.Account{}, refusal.ForeignClientID
	}
	return account, nil
}

// checkPassword looks at a password, if it may, and gives a wrong one its answer when it is time to.
func (h *hook) checkPassword(l *clientLink, user string, password []byte) (access.Account, error) {
	asked, _ := h.account(user)
	try, wait, ok := l.Attempt(asked)
	err := error(refusal.TooManyFailedLogins)
	if ok {
		var account access.Account
		if account, err = h.authenticate(user, l.id, password, wait); err == nil {
			try.Right()
			return account, nil
		}
	}
	delayed := try.Wrong(!ok)
	if delayed {
		h.refusals.Count(refusal.AnswerDelayed, 1, refusal.Source{Account: asked.Name, Remote: l.RemoteAddr()})
	}
	l.throttled = delayed || !ok
	return access.Account{}, err
}

// passFor is how long a pass can be used.
const passFor = time.Minute

// passes are passwords of the backend's account that are good for one login.
type passes struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (p *passes) give(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.until, func(_ string, end time.Time) bool { return now.After(end) })
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	pass := rand.Text()
	p.until[pass] = now.Add(passFor)
	return pass
}

func (p *passes) take(pass string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	end, there := p.until[pass]
	delete(p.until, pass)
	return there && !now.After(end)
}

func (h *hook) authenticate(user, clientID string, password []byte, w access.Wait) (access.Account, error) {
	if user == h.backend.Username {
		same := subtle.ConstantTimeCompare(password, []byte(h.backend.Password)) == 1
		if (!same || h.backend.Password == "") && (clientID == h.backend.ClientID || !h.passes.take(string(password), h.now())) {
			return access.Account{}, refusal.WrongPassword
		}
		account, _ := h.account(user)
		return account, nil
	}
	if h.accounts == nil {
		return access.Account{}, refusal.UnknownUser
	}
	account, ok := h.accounts.Authenticate(user, password, w)
	if ok && account.Name == user {
		return account, nil
	}
	if _, known := h.accounts.Lookup(user); !known {
		return access.Account{}, refusal.UnknownUser // the client is told the same as for a wrong password
	}
	return access.Account{}, refusal.WrongPassword
}

// account returns what the account of that name may do at this moment.
func (h *hook) account(name string) (access.Account, bool) {
	if name == h.backend.Username {
		return access.Account{Name: name, Publish: everything, Subscribe: everything, Admin: true, Guessable: true}, true
	}
	if h.accounts == nil {
		return access.Account{}, false
	}
	return h.accounts.Lookup(name)
}

// certificateFits compares the name in a client certificate with the user name, where certificates are required: the
// two are one identity. A certificate with several names is nobody's.
func (h *hook) certificateFits(l *clientLink, user string) bool {
	state := l.TLSState()
	if !h.mustCert || state == nil {
		return true
	}
	if len(state.VerifiedChains) == 0 {
		return false
	}
	subject := state.PeerCertificates[0].Subject
	names := 0
	for _, attribute := range subject.Names {
		if attribute.Type.Equal(commonName) {
			names++
		}
	}
	return names == 1 && subject.CommonName == user
}

var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// certificateRevoked reports whether the certificate with which l was connected has been revoked since.
func (h *hook) certificateRevoked(l *clientLink) bool {
	if !h.mustCert || h.isRevoked == nil {
		return false
	}
	state := l.TLSState()
	return state != nil && h.isRevoked(state.VerifiedChains)
}

// mayUseClientID keeps client ids that are names for those who bear the name. All others are free to choose.
func (h *hook) mayUseClientID(user, clientID string) bool {
	prefix := h.backend.ClientIDPrefix
	switch {
	case clientID == h.backend.ClientID, prefix != "" && strings.HasPrefix(clientID, prefix):
		return user == h.backend.Username
	case clientID == user:
		return true
	}
	_, taken := h.account(clientID)
	return !taken
}

func (h *hook) isIngest(l *clientLink) bool {
	return l.account == h.backend.Username && l.id == h.backend.ClientID
}

// checkWill applies the rules for publishing to the will, which mochi would send unseen.
func (h *hook) checkWill(l *clientLink, pk packets.Packet) error {
	if !pk.Connect.WillFlag {
		return nil
	}
	err := topic.Check(pk.Connect.WillTopic, h.maxLevels)
	if l.noWill = err == topic.ErrReserved && isBridgeState(pk.Connect.WillTopic); l.noWill {
		l.sayBridgeState(pk.Connect.WillTopic)
		return nil
	}
	if err == topic.ErrReserved {
		return refusal.WillNotAllowed
	} else if err != nil {
		return refusal.InvalidWillTopic
	}
	if !l.rights.MayPublish(pk.Connect.WillTopic) {
		return refusal.WillNotAllowed
	}
	return nil
}
