package snippet

// knownRSA is a certificate with an RSA key of 2048 bits. Its fingerprint was made with openssl and sha1sum:
//
//	(printf '\0\0\0\7ssh-rsa\0\0\0\3\1\0\1\0\0\1\0'; openssl x509 -noout -modulus -in FILE | cut -d= -f2 | xxd -r -p) | sha1sum
const knownRSA = `MIIDATCCAemgAwIBAgIUDfCEO7u7hmPf9Ep28lfb+6x8KEowDQYJKoZIhvcNAQELBQAwDzENMAsGA1UEAwwEdGVzdDAgFw0yNjEx
MzAwOTQxNDZaGA8yMTI2MTEwNjA5NDE0NlowDzENMAsGA1UEAwwEdGVzdDCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEB
ANTlDiGCCtqhyggYw6UOyrwZaYiT2j0L+XBFV0iLlje16CE3YmtdtgHXwMlDJfX9LHFrUggqN67b9X0FFdAJjNbBJh/FgSvTDOiw
xuNbSKMNWjhedz0nnMrvFpRFjwjZr+8sL35YhOml/wFY1rwN1QBrsE4lDNkBpbNcnEB9eHe2Tgpw/N9c6ewYdyJtvRdyiecuY+8f
t/VI+uzY2eto+P/Ro1MlOMv7Tkh330vYD2vaRId2x+8XDbPQcRdfufRYtqfy7NnOsx4cIkdFa9dMQtsNAk06aN4XAs8Ssk5QLP3o
gnuPOzDZeYX3SIM6/UGmtokTeCfu8+M4KuOkCXS98+kCAwEAAaNTMFEwHQYDVR0OBBYEFIl/EiGNFIbQoEUDBc3PkbtnQQcaMB8G
A1UdIwQYMBaAFIl/EiGNFIbQoEUDBc3PkbtnQQcaMA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZIhvcNAQELBQADggEBACagNNX0a11R
E2CiZOhztIRAZw5k7LOJZ6iqNNOiWeoVpsVZH5CAMkBPXr7Tqm4E07rllrs8NB2gB2IEyr0i37VYABBUFBU9fgAC/liz4qPcRw3Y
L7PLq4o7h3ALmQy+EPKn2lb2DVT0VscQrMcx8SoaUfuqbfmIfPB8eObHDE+tsyT+LVFIq4Ye7BgGU64JRqvVb4QHe2tKEjMmMsn2
ViMh+lmnxUas8w9H/S9iV3edw8bLfwDpNz9DOwqCi/pCOWogtFDgwNlJvijck3GnXdA7L+/fjE+7VNnzuwdoBZppnPUJjxfKX2AA
tolDXKTriLkjpwcJd/Qs6aC6A/HcovQ=`

const knownFingerprint = "D7 02 3C AD 2B C7 5E 2C 9C FF D7 7A 1F 05 6A C4 8E 75 BD 18"
