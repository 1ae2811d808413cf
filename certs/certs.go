// Package certs is the local certificate authority of a PlantOps box: it creates the authority and the
// server certificate, keeps the server certificate fresh while the program runs, issues client
// certificates, and judges the certificates that the operator brings.
//
// Everything lives in one directory:
//
//	ca.key      key of the authority, 0600; absent when the certificates come from outside
//	ca-2.key …  keys of the authorities that followed it, 0600; see rollover.go
//	ca.crt      what clients trust, 0644
//	server.key  key of the server, 0600; a renewal keeps it
//	server.crt  what the broker shows, 0644
//	server-rsa.key, server-rsa.crt  the same for clients that know RSA alone; made by Run
//	ca.crl      which client certificates are revoked, 0644; absent until one was issued
//	issued.jsonl  the client certificates that were issued, one a line, 0600; see IssueFiles
//
// Because a renewal keeps the key, it replaces one file, and there is no moment at which key and
// certificate on disk do not belong together. Creation removes an old ca.crt first and writes the new one
// last: while it is absent there is no authority, and the next Create finishes the work with the keys that are already there.
//
// The package leaves to its caller who may connect (accounts) and what a person is told to type, with one
// exception: a key that others can read is refused with the chmod that repairs it.
package certs

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that callers branch on; each comes wrapped with the path or time that it is about.
var (
	// ErrNoAuthority: the directory holds no finished certificate authority; Create makes one.
	ErrNoAuthority = errors.New("no certificate authority")
	// ErrExists: a file is there and is not overwritten.
	ErrExists = errors.New("already exists")
	// ErrInsecureKey: a private key can be used by others than its owner.
	ErrInsecureKey = errors.New("private key is open to other users")
	// ErrClock: the clock stands before the build date or outside the life of our authority, so nothing is signed; it will
	// do once time is set.
	ErrClock = errors.New("the clock is not set")
	// ErrKeyInside: a file of certificates that is given to everybody holds a private key too.
	ErrKeyInside = errors.New("holds a private key beside the certificate, and this file is given to every device")
	// ErrDates: a certificate is expired or not valid yet. Time, or a clock that is set, can heal it.
	ErrDates = errors.New("not valid at this time")
	// ErrNames: a server certificate is not for that host.
	ErrNames = errors.New("does not cover")
)

// Options say where the certificates are and what they must cover.
type Options struct {
	// Dir holds the files; it is created, with its parents, by Create.
	Dir string
	// CACert, ServerCert and ServerKey override single files of Dir. When one of them points elsewhere, or
	// when Dir has no ca.key, the certificates come from outside: they are served and never rewritten.
	CACert, ServerCert, ServerKey string
	// CRL is a revocation list from outside: it must be there, and is never rewritten. "" means ca.crl in Dir, which is
	// ours; a path to that file means the same.
	CRL string
	// ExtraNames are host names or addresses that the server certificate covers besides those of this host.
	ExtraNames []string
	// ReadOnly is for looking: Open writes nothing, and an expired certificate is no error.
	ReadOnly bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// NotBeforeClock is the build date: a clock before it is wrong. The zero time trusts every clock.
	NotBeforeClock time.Time
	// Doubt says in words why Now is not to be trusted: nothing is signed then. "" means that it is; nil always.
	Doubt func() string
	// Judge is the time by which clients' certificates are judged: while Now is in doubt one that has certainly passed. nil is
	// Now.
	Judge func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

// Authority is an opened certificate directory. Its methods are safe for concurrent use.
type Authority struct {
	dir                   string
	caCert, caKey         string // paths
	serverCert, serverKey string
	rsaCert, rsaKey       string
	index, ownList, crl   string // crl is ownList unless foreignList
	outside               bool   // a path points out of dir
	foreignList           bool   // Options.CRL
	readOnly              bool
	build                 time.Time
	now                   func() time.Time
	judge                 func() time.Time
	doubt                 func() string
	names                 func() []string // what the server certificate must cover, now
	log                   *slog.Logger

	current atomic.Pointer[generation]
	rsa     rsaSlot

	mu       sync.Mutex     // held while files are read or written; guards what follows
	rejected string         // why the files were refused at the last look; that is logged
	failing  bool           // the last renewal failed, and that is logged
	rsaSaid  string         // what is wrong with the second certificate; that is logged
	warned   map[string]int // fingerprint: the stage of expiry that is logged
}

// Create makes what Open needs: the authority and a server certificate. It refuses to touch existing
// files with ErrExists unless force is set, which makes every client of the old authority a stranger. A
// Create that was interrupted is finished by the next one. With a clock before the build date it returns
// ErrClock and creates nothing.
func Create(o Options, force bool) (*Authority, error) {
	a, err := newAuthority(o)
	if err == nil {
		err = a.create(force)
	}
	if err != nil {
		return nil, fmt.Errorf("create certificates: %w", err)
	}
	return a, nil
}

// Open reads the certificates and checks them: modes of the keys, each key belongs to its certificate, the
// server certificate is signed by the authority. With our own authority it first
// issues a server certificate when there is none or when the one there is due for renewal. A missing
// authority is ErrNoAuthority; ErrClock is one that has no server certificate and cannot make it at this time. What is
// expired or not valid yet is served all the same: Run says so and goes on trying.
func Open(o Options) (*Authority, error) {
	a, err := newAuthority(o)
	if err == nil {
		err = a.open()
	}
	if err != nil {
		return nil, fmt.Errorf("open certificates: %w", err)
	}
	return a, nil
}

// ClockUnsure reports whether a clock showing now cannot be right for a program built at build.
func ClockUnsure(now, build time.Time) bool { return now.Before(build) }

func newAuthority(o Options) (*Authority, error) {
	if o.Dir == "" {
		return nil, errors.New("no directory given")
	}
	for _, name := range o.ExtraNames {
		if !validName(name) {
			return nil, fmt.Errorf("extra name %q is neither a host name nor an address", name)
		}
	}
	dir := filepath.Clean(o.Dir)
	a := &Authority{
		dir:        dir,
		caCert:     filepath.Join(dir, "ca.crt"),
		caKey:      filepath.Join(dir, "ca.key"),
		serverCert: filepath.Join(dir, "server.crt"),
		serverKey:  filepath.Join(dir, "server.key"),
		rsaCert:    filepath.Join(dir, "server-rsa.crt"),
		rsaKey:     filepath.Join(dir, "server-rsa.key"),
		rsa:        rsaSlot{made: make(chan struct{})},
		index:      filepath.Join(dir, "issued.jsonl"),
		ownList:    filepath.Join(dir, "ca.crl"),
		readOnly:   o.ReadOnly,
		build:      o.NotBeforeClock,
		now:        o.Now,
		judge:      o.Judge,
		doubt:      o.Doubt,
		log:        o.Log,
		warned:     map[string]int{},
	}
	a.outside = override(&a.caCert, o.CACert)
	a.outside = override(&a.serverCert, o.ServerCert) || a.outside
	a.outside = override(&a.serverKey, o.ServerKey) || a.outside
	a.crl = a.ownList
	a.foreignList = override(&a.crl, o.CRL)
	if a.doubt == nil {
		a.doubt = func() string { return "" }
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.judge == nil {
		a.judge = a.now
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	extra := slices.Clone(o.ExtraNames)
	a.names = func() []string { return localNames(extra) }
	return a, nil
}

// override replaces *path by another one and reports whether that names a different file.
func override(path *string, other string) bool {
	if other == "" || filepath.Clean(other) == filepath.Clean(*path) {
		return false
	}
	*path = other
	return true
}

func (a *Authority) create(force bool) error {
	if a.outside {
		return fmt.Errorf("the paths of certificates from outside are set (%s, %s, %s); they are only served", a.caCert, a.serverCert, a.serverKey)
	}
	if a.foreignList {
		return fmt.Errorf("%s is the revocation list of another authority", a.crl)
	}
	now := a.now()
	if err := a.checkClock(nil, now); err != nil {
		return err
	}
	if err := makeDir(a.dir); err != nil {
		return err
	}
	if err := a.exclusively(func() error { return a.writeAuthority(force, now) }); err != nil {
		return err
	}
	g, err := a.load(nil)
	if err != nil {
		return err
	}
	a.use(g)
	a.log.Info("created certificate authority", "dir", a.dir, "fingerprint", a.Fingerprint(),
		"names", namesOf(g.server()), "expires", g.roots[0].NotAfter)
	return nil
}

func (a *Authority) writeAuthority(force bool, now time.Time) error {
	caKey, serverKey, err := a.keysForCreate(force)
	if err != nil {
		return err
	}
	ca, err := newRoot(caKey, now)
	if err != nil {
		return err
	}
	server, err := newServer(a.names(), serverKey.Public(), ca, caKey, now)
	if err != nil {
		return err
	}
	files := []file{{a.caKey, encodeKey(caKey), 0o600}, {a.serverKey, encodeKey(serverKey), 0o600},
		{a.serverCert, encodeCert(server), 0o644}, {a.caCert, encodeCert(ca), 0o644}} // ca.crt last: see the package comment
	// What another authority issued and revoked means nothing under this one.
	obsolete := []string{a.ownList, a.index, a.rsaCert, a.rsaKey}
	for n := 2; exists(a.authorityKey(n)); n++ {
		obsolete = append(obsolete, a.authorityKey(n))
	}
	if force {
		obsolete = append([]string{a.caCert}, obsolete...) // or an interruption would leave the old certificate with the new key
	}
	return replaceFiles(obsolete, files...)
}

// keysForCreate decides which keys a new authority gets: new ones, or those that an interrupted Create
// left behind, because a key is never overwritten without force.
func (a *Authority) keysForCreate(force bool) (caKey, serverKey crypto.Signer, err error) {
	if !force {
		if exists(a.caCert) {
			return nil, nil, fmt.Errorf("%s %w", a.caCert, ErrExists)
		}
		interrupted := exists(a.caKey) // the first file that Create writes
		for _, path := range []string{a.serverKey, a.serverCert} {
			if exists(path) && !interrupted {
				return nil, nil, fmt.Errorf("%s %w", path, ErrExists)
			}
		}
		if caKey, err = readKey(a.caKey); err != nil && !isMissing(err) {
			return nil, nil, err
		}
		if serverKey, err = readKey(a.serverKey); err != nil && !isMissing(err) {
			return nil, nil, err
		}
	}
	if caKey == nil {
		if caKey, err = newKey(); err != nil {
			return nil, nil, err
		}
	}
	if serverKey == nil {
		if serverKey, err = newKey(); err != nil {
			return nil, nil, err
		}
	}
	return caKey, serverKey, nil
}

func (a *Authority) open() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, err := a.look(nil)
	if err != nil {
		return err
	}
	a.use(g)
	return nil
}

// Fingerprint is the SHA-256 of the authority's certificate, as AB:CD:… Of several it is the first one's.
func (a *Authority) Fingerprint() string { return fingerprint(a.current.Load().handedOut(a.now())[0]) }

// RootPEM is what clients need to trust this box: the certificates of the authority, while it rolls over of the next one too.
// They are encoded anew: nothing else that the file may hold is in it.
func (a *Authority) RootPEM() []byte { return encodeCert(a.current.Load().handedOut(a.now())...) }

// handedOut are the authorities that hold at that time, or all when none does: then it is rather the clock that is wrong.
func (g *generation) handedOut(now time.Time) []*x509.Certificate {
	if len(g.own) < 2 {
		return g.roots
	}
	valid := slices.DeleteFunc(slices.Clone(g.roots), func(c *x509.Certificate) bool { return checkDates(c, now) != nil })
	if len(valid) == 0 {
		return g.roots
	}
	return valid
}

// Own reports whether certificates can be issued: the key of the authority is there.
func (a *Authority) Own() bool { return a.current.Load().caKey != nil }

// ClockUnsure reports whether a clock showing now cannot be right: it stands before the build date, or before our own
// authority was made.
func (a *Authority) ClockUnsure(now time.Time) bool { return a.unsure(a.current.Load(), now) }

// Life is from when until when our own authorities are valid, the first to the last; ok is false when they come from outside.
func (a *Authority) Life() (from, until time.Time, ok bool) {
	g := a.current.Load()
	if len(g.own) == 0 {
		return time.Time{}, time.Time{}, false
	}
	from, until = g.own[0].cert.NotBefore, g.own[0].cert.NotAfter
	for _, s := range g.own {
		from, until = earliest(from, s.cert.NotBefore), latest(until, s.cert.NotAfter)
	}
	return from, until, true
}

// ServerPEM is the certificate chain that is being served, for VerifyServer.
func (a *Authority) ServerPEM() []byte { return encodeCert(a.current.Load().chain...) }

// Info describes one certificate for people.
type Info struct {
	Role        string    `json:"role"` // "ca" or "server"
	Path        string    `json:"path"`
	Subject     string    `json:"subject"`
	Names       []string  `json:"names,omitempty"` // host names and addresses that it covers
	Key         string    `json:"key"`             // kind of its key: "ECDSA P-256", "RSA 2048"
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Fingerprint string    `json:"fingerprint"` // SHA-256, as AB:CD:…
}

// Certificates describes the certificates in use: those of the authority, then the server's; the one for clients that know
// RSA alone is last.
func (a *Authority) Certificates() []Info {
	g := a.current.Load()
	infos := make([]Info, 0, len(g.roots)+2)
	for _, root := range g.handedOut(a.now()) {
		infos = append(infos, describe("ca", a.caCert, root))
	}
	infos = append(infos, describe("server", a.serverCert, g.server()))
	if len(g.rsa.chain) > 0 {
		infos = append(infos, describe("server", a.rsaCert, g.rsa.chain[0]))
	}
	return infos
}

func describe(role, path string, c *x509.Certificate) Info {
	return Info{Role: role, Path: path, Subject: c.Subject.String(), Names: namesOf(c), Key: keyText(c),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Fingerprint: fingerprint(c)}
}
