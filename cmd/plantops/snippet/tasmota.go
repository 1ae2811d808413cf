package snippet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// TasmotaFingerprint is what Tasmota compares with its MqttFingerprint: the SHA-1 of the server's public key, in version 2 of
// its algorithm (since 9.2.0.3, WiFiClientSecureLightBearSSL.cpp). Each part has its length in front, 32 bits, big endian:
//
//	RSA      "ssh-rsa", exponent, modulus; both without leading zeros
//	ECDSA    "ecdsa-sha2-nistp256", the point, uncompressed; P-256 is the only curve that it knows
//
// It comes as 20 bytes in hexadecimal with spaces between, as its console takes it. A renewal that keeps the key keeps it.
func TasmotaFingerprint(c *x509.Certificate) (string, error) {
	var parts [][]byte
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() > 2048 {
			return "", fmt.Errorf("a Tasmota device takes RSA keys of at most 2048 bits, this one has %d", key.N.BitLen())
		}
		parts = [][]byte{[]byte("ssh-rsa"), big.NewInt(int64(key.E)).Bytes(), key.N.Bytes()}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return "", fmt.Errorf("a Tasmota device knows no curve but P-256, this key is on %s", key.Curve.Params().Name)
		}
		point, err := key.Bytes()
		if err != nil {
			return "", err
		}
		parts = [][]byte{[]byte("ecdsa-sha2-nistp256"), point}
	default:
		return "", fmt.Errorf("a Tasmota device knows RSA and ECDSA keys only, this one is %s", c.PublicKeyAlgorithm)
	}
	sum := sha1.New()
	for _, part := range parts {
		sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		sum.Write(part)
	}
	return fmt.Sprintf("% X", sum.Sum(nil)), nil
}

// TasmotaKeys are the fingerprints that Tasmota gets. By default it offers RSA alone, so that one comes first.
type TasmotaKeys struct {
	RSA, ECDSA string // empty: the server has no such certificate
}

// Tasmota returns the fingerprints of the server's certificates.
func (f Facts) Tasmota() (TasmotaKeys, error) {
	var keys TasmotaKeys
	certificates, err := f.servers()
	if err != nil {
		return keys, err
	}
	for _, c := range certificates {
		text, fault := TasmotaFingerprint(c)
		switch c.PublicKey.(type) {
		case *rsa.PublicKey:
			keys.RSA = text
		case *ecdsa.PublicKey:
			keys.ECDSA = text
		}
		err = errors.Join(err, fault)
	}
	if keys.RSA == "" && keys.ECDSA == "" {
		return keys, errors.Join(errors.New("the server has no certificate that Tasmota could know it by"), err)
	}
	return keys, nil
}

// notForConsole is what ends a command of the console, or what Tasmota replaces in a topic.
var notForConsole = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

const longestTasmotaName = 32 // TOPSZ of its topic and of its user name

func checkTasmota(f Facts) error {
	if notForConsole.MatchString(f.Device) || len(f.Device) > longestTasmotaName {
		return fmt.Errorf("the name %q cannot be typed into Tasmota's console: use at most %d letters, digits, '-', '_' and '.'", f.Device, longestTasmotaName)
	}
	if strings.ContainsAny(f.Host, " ;\"") {
		return fmt.Errorf("the host %q cannot be typed into Tasmota's console", f.Host)
	}
	if !f.TLS() {
		return nil
	}
	_, err := f.Tasmota()
	return err
}
