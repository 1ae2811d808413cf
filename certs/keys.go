package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	// crypto/rsa refuses to sign with shorter keys, and crypto/tls to look at certificates with longer ones.
	minRSABits, maxRSABits = 1024, 8192

	supportedKeys = "RSA, ECDSA with the curves P-256, P-384 and P-521, and Ed25519 are"
)

// parseKey returns the first private key of a PEM text. Its errors end a sentence that begins with the file, and never
// quote the text. A key that is whole and of a kind that Go cannot use is called unsupported, not damaged.
func parseKey(data []byte) (crypto.Signer, error) {
	text, err := pemText(data)
	if err != nil {
		return nil, err
	}
	other := ""
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if isKeyBlock(block.Type) {
			return parseKeyBlock(block)
		}
		if block.Type != "EC PARAMETERS" { // comes before the key that openssl ecparam writes
			other = block.Type
		}
	}
	switch kind := binaryKind(data); {
	case other == blockCertificate || other == blockX509Certificate || other == blockTrustedCertificate:
		return nil, errors.New("holds no private key in PEM form, but a certificate")
	case other != "":
		return nil, fmt.Errorf("holds no private key in PEM form (%s)", otherBlock(other))
	case kind != "":
		return nil, fmt.Errorf("holds %s; PEM is needed: openssl pkey -inform DER -in FILE -out NEW", kind)
	}
	return nil, fmt.Errorf("holds no private key in PEM form%s", deformed(text, "PRIVATE KEY"))
}

func parseKeyBlock(block *pem.Block) (crypto.Signer, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errors.New("is encrypted; the key is needed without a passphrase: openssl pkey -in FILE -out NEW")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "DSA PRIVATE KEY":
		return nil, unsupported("DSA")
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("holds a key of OpenSSH, which is not for TLS: make one with openssl genpkey")
	default:
		return nil, fmt.Errorf("holds a key of an unsupported kind (%.40q); %s supported", block.Type, supportedKeys)
	}
	if err != nil {
		if words := unsupportedPrivateKey(block); words != nil {
			return nil, words
		}
		return nil, errors.New("holds a damaged private key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, unsupported("a key for agreement, not for signatures (X25519)")
	}
	if err := checkUsable(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// checkUsable says why crypto/tls could not use a key that crypto/x509 reads.
func checkUsable(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("is unsupported: RSA with %d bits, between %d and %d are needed", bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return unsupported("the curve " + k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return unsupported("a kind of key that Go does not know")
	}
	return nil
}

// keyText names the kind of a certificate's key.
func keyText(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	}
	return c.PublicKeyAlgorithm.String()
}

func unsupported(what string) error {
	return fmt.Errorf("is unsupported: %s; %s supported", what, supportedKeys)
}

// keyKinds are algorithms and curves that openssl makes keys for and Go cannot use.
var keyKinds = map[string]string{
	"1.2.840.113549.1.1.10":   "RSA-PSS; make a plain RSA key instead, it signs with PSS as well",
	"1.2.840.10040.4.1":       "DSA",
	"1.2.840.113549.1.3.1":    "DH",
	"1.3.101.110":             "X25519, a key for agreement",
	"1.3.101.111":             "X448, a key for agreement",
	"1.3.101.113":             "Ed448",
	"1.2.156.10197.1.301":     "the curve SM2",
	"1.3.132.0.10":            "the curve secp256k1",
	"1.3.132.0.33":            "the curve P-224",
	"1.2.840.10045.3.1.1":     "the curve P-192",
	"1.3.36.3.3.2.8.1.1.7":    "the curve brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.11":   "the curve brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.13":   "the curve brainpoolP512r1",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
	"1.2.840.113549.1.1.1":    "", // RSA
	"1.2.840.10045.2.1":       "", // EC: the curve decides
	"1.3.101.112":             "", // Ed25519
	"1.2.840.10045.3.1.7":     "", // P-256
	"1.3.132.0.34":            "", // P-384
	"1.3.132.0.35":            "", // P-521
	"1.2.840.10045.1.1":       "a curve with explicit parameters; make the key with a named curve",
	"1.2.840.10045.1.2":       "a curve with explicit parameters; make the key with a named curve",
	"1.3.36.3.3.2.8.1.1.1":    "the curve brainpoolP160r1",
	"1.3.36.3.3.2.8.1.1.3":    "the curve brainpoolP192r1",
	"1.3.36.3.3.2.8.1.1.5":    "the curve brainpoolP224r1",
	"1.3.36.3.3.2.8.1.1.9":    "the curve brainpoolP320r1",
}

const algorithmEC = "1.2.840.10045.2.1"

// unsupportedPrivateKey says why a key that crypto/x509 does not read is unsupported; nil when it is damaged.
func unsupportedPrivateKey(block *pem.Block) error {
	switch block.Type {
	case "PRIVATE KEY":
		var key struct {
			Version    int
			Algorithm  pkix.AlgorithmIdentifier
			PrivateKey []byte
			Rest       asn1.RawValue `asn1:"optional"`
		}
		if _, err := asn1.Unmarshal(block.Bytes, &key); err == nil {
			return unsupportedAlgorithm(key.Algorithm)
		}
	case "EC PRIVATE KEY": // RFC 5915: version, key, [0] curve, [1] public key
		var whole, part asn1.RawValue
		if _, err := asn1.Unmarshal(block.Bytes, &whole); err != nil {
			return nil
		}
		for rest := whole.Bytes; len(rest) > 0; {
			var err error
			if rest, err = asn1.Unmarshal(rest, &part); err != nil {
				return nil
			}
			if part.Class == asn1.ClassContextSpecific && part.Tag == 0 {
				return unsupportedCurve(part.Bytes)
			}
		}
	}
	return nil
}

// unsupportedPublicKey is unsupportedPrivateKey for a certificate.
func unsupportedPublicKey(der []byte) error {
	var c struct {
		TBS struct {
			Version   int `asn1:"optional,explicit,default:0,tag:0"`
			Serial    asn1.RawValue
			Signature pkix.AlgorithmIdentifier
			Issuer    asn1.RawValue
			Validity  asn1.RawValue
			Subject   asn1.RawValue
			PublicKey struct {
				Algorithm pkix.AlgorithmIdentifier
				Key       asn1.BitString
			}
			Rest asn1.RawValue `asn1:"optional"`
		}
		SignatureAlgorithm pkix.AlgorithmIdentifier
		Signature          asn1.BitString
	}
	// encoding/asn1 leaves what follows the last known field of a sequence aside.
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		return nil
	}
	return unsupportedAlgorithm(c.TBS.PublicKey.Algorithm)
}

func unsupportedAlgorithm(algorithm pkix.AlgorithmIdentifier) error {
	oid := algorithm.Algorithm.String()
	if oid == algorithmEC {
		return unsupportedCurve(algorithm.Parameters.FullBytes)
	}
	return unsupportedKind(oid, "the algorithm ")
}

func unsupportedCurve(der []byte) error {
	var named asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(der, &named); err == nil {
		return unsupportedKind(named.String(), "the curve ")
	}
	var explicit asn1.RawValue
	if _, err := asn1.Unmarshal(der, &explicit); err == nil && explicit.Tag == asn1.TagSequence {
		return unsupported("a curve with explicit parameters; make the key with a named curve")
	}
	return nil
}

func unsupportedKind(oid, what string) error {
	kind, known := keyKinds[oid]
	switch {
	case !known:
		return unsupported(what + oid)
	case kind == "":
		return nil
	}
	return unsupported(kind)
}
