package snippet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// certificate is one that a key signed itself, in PEM.
func certificate(t *testing.T, key crypto.Signer) (string, *x509.Certificate) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), c
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

// example are facts of a server with both kinds of certificates and a CA that is being followed by the next.
func example(t *testing.T) Facts {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	second, _ := certificate(t, key)
	first, _ := certificate(t, ecdsaKey(t, elliptic.P256()))
	ca, _ := certificate(t, ecdsaKey(t, elliptic.P256()))
	next, _ := certificate(t, ecdsaKey(t, elliptic.P256()))
	return Facts{Device: "bed-1", Password: "Z_uzn6VA-YrSCZ9nrzSHYOR2mUnmMvg9_KPP0vzJQHI", Host: "192.168.1.10", Port: 8883,
		Topic: "devices/bed-1/telemetry", CA: ca + next, Servers: first + second}
}

// checkers judge the syntax of each form as far as that is possible without the program that it is for.
func checkers() map[string]func(t *testing.T, f Facts, text string) {
	return map[string]func(*testing.T, Facts, string){
		"arduino": checkArduino, "esphome": checkESPHome, "micropython": checkPython, "mosquitto": checkShell,
		"nodered": checkNodeRED, "python": checkPython, "tasmota": checkConsole,
	}
}

func TestEveryFormIsGoodInItsLanguage(t *testing.T) {
	tls := example(t)
	plain := tls
	plain.CA, plain.Servers, plain.Port = "", "", 1883
	ipv6 := tls
	ipv6.Host = "fd00::10"
	odd := tls
	odd.Device = `ge'wächs"3\ {*/ # ; "" & (x)` + "`"
	odd.Topic = "devices/" + odd.Device + "/telemetry"
	for name, facts := range map[string]Facts{"with TLS": tls, "without TLS": plain, "an IPv6 address": ipv6, "a name that needs quoting": odd} {
		for _, form := range Forms() {
			t.Run(form+"/"+name, func(t *testing.T) {
				file, err := Write(form, facts)
				if form == "tasmota" && name == "a name that needs quoting" {
					require.ErrorContains(t, err, "cannot be typed into Tasmota's console")
					return
				}
				require.NoError(t, err)
				checkers()[form](t, facts, file.Text)
				assert.NotRegexp(t, `<no value>|%!|\{\{`, strings.ReplaceAll(file.Text, odd.Device, ""))
				assert.NotRegexp(t, `(?i)insecure|verify_mode = ssl.CERT_NONE|tls_insecure`, file.Text)
				assert.NotContains(t, file.Name, "..")
				assert.Regexp(t, `^([\w.-]+/)?[\w.-]+\.(ino|yaml|py|sh|json|txt)$`, file.Name)
			})
		}
	}
}

func TestEveryFormHasWhatTheDeviceNeeds(t *testing.T) {
	f := example(t)
	for _, form := range Forms() {
		t.Run(form, func(t *testing.T) {
			file, err := Write(form, f)
			require.NoError(t, err)
			for _, fact := range []string{f.Device, f.Password, f.Host, fmt.Sprint(f.Port), f.Topic} {
				assert.Contains(t, file.Text, fact)
			}
			assert.NotEmpty(t, About(form))
			if form == "tasmota" { // knows the server by its key
				assert.NotContains(t, file.Text, "CERTIFICATE")
				return
			}
			for rest := []byte(f.CA); len(rest) > 0; {
				var block *pem.Block
				block, rest = pem.Decode(rest)
				text := strings.NewReplacer("\n", "", " ", "", `\n`, "").Replace(file.Text)
				assert.Contains(t, text, base64.StdEncoding.EncodeToString(block.Bytes), "each certificate of the CA")
			}
		})
	}
}

func TestFormIsFilledInByLines(t *testing.T) {
	values := map[string]string{"Device": "bed {{CA}}", "CA": "", "NoTLS": "true"}
	text, err := fill("a {{Device}} {{quote Device}}\n{{if CA}}\nnot {{Unknown}} this\n{{end}}\n{{if NoTLS}}\nthis\n{{end}}\nend", values)
	require.NoError(t, err)
	assert.Equal(t, "a bed {{CA}} \"bed {{CA}}\"\nthis\nend", text)
	for _, form := range []string{"{{Unknown}}", "{{quote Unknown}}", "{{unknown Device}}", "{{Device", "{{if Unknown}}"} {
		_, err := fill(form, values)
		require.ErrorContains(t, err, "not known: "+form)
	}
}

func TestFormThatThereIsNotIsRefused(t *testing.T) {
	require.ErrorContains(t, Check("fortran", example(t)), `there is no form "fortran", only arduino, `)
	none := example(t)
	none.Host = ""
	require.ErrorContains(t, Check("python", none), "no host")
	assert.Empty(t, About("fortran"))
}

// The bytes that Tasmota hashes, put together by hand from the key: see pubkeyfingerprint_pubkey_fingerprint there.
func TestTasmotaFingerprintIsThatOfTheKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, c := certificate(t, key)
	got, err := TasmotaFingerprint(c)
	require.NoError(t, err)
	hashed, err := hex.DecodeString("00000007" + hex.EncodeToString([]byte("ssh-rsa")) + "00000003" + "010001" + "00000100" + fmt.Sprintf("%0512x", key.N))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf("% X", sha1.Sum(hashed)), got)
	assert.Regexp(t, `^([0-9A-F]{2} ){19}[0-9A-F]{2}$`, got)

	ec := ecdsaKey(t, elliptic.P256())
	_, c = certificate(t, ec)
	got, err = TasmotaFingerprint(c)
	require.NoError(t, err)
	point, err := ec.PublicKey.Bytes()
	require.NoError(t, err)
	require.Len(t, point, 65)
	hashed = append(append([]byte("\x00\x00\x00\x13ecdsa-sha2-nistp256"), 0, 0, 0, 65), point...)
	assert.Equal(t, fmt.Sprintf("% X", sha1.Sum(hashed)), got)
}

// A known key: openssl's own numbers, hashed with sha1sum.
func TestTasmotaFingerprintOfAKnownCertificate(t *testing.T) {
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(knownRSA, "\n", ""))
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	got, err := TasmotaFingerprint(c)
	require.NoError(t, err)
	assert.Equal(t, knownFingerprint, got)
}

func TestTasmotaIsToldWhyItCannotKnowTheServer(t *testing.T) {
	other, _ := certificate(t, ecdsaKey(t, elliptic.P384()))
	large, err := rsa.GenerateKey(rand.Reader, 3072)
	require.NoError(t, err)
	rsa3072, _ := certificate(t, large)
	for name, c := range map[string]struct{ servers, want string }{
		"none":                {"", "no certificate that Tasmota could know it by"},
		"another curve":       {other, "P-384"},
		"a key that is large": {rsa3072, "at most 2048 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			f := example(t)
			f.Servers = c.servers
			require.ErrorContains(t, Check("tasmota", f), c.want)
		})
	}
	f := example(t)
	f.Servers = other + f.Servers
	require.NoError(t, Check("tasmota", f), "the RSA certificate will do")
}

func TestTasmotaWithECDSAAloneNeedsAnOption(t *testing.T) {
	f := example(t)
	f.Servers, _ = certificate(t, ecdsaKey(t, elliptic.P256()))
	file, err := Write("tasmota", f)
	require.NoError(t, err)
	checkConsole(t, f, file.Text)
	assert.Contains(t, file.Text, "SetOption165 1")

	file, err = Write("tasmota", example(t))
	require.NoError(t, err)
	assert.NotContains(t, file.Text, "SetOption165")
}

func TestNamesOfFilesAndHosts(t *testing.T) {
	for device, want := range map[string][2]string{
		"bed-1":                              {"bed-1", "bed-1"},
		"Bed_1":                              {"Bed_1", "bed-1"},
		"..":                                 {"device", "device"},
		"gewächs haus":                       {"gew-chs-haus", "gew-chs-haus"},
		"a very long name of a device, more": {"a-very-long-name-of-a-device-more", "a-very-long-name-of-a-de"},
	} {
		f := Facts{Device: device}
		assert.Equal(t, want, [2]string{f.FileName(), f.HostName()}, device)
	}
}
