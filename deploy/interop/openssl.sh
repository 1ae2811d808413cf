#!/usr/bin/env bash
# openssl as the strictest reader of our certificates.
. "$(dirname "$0")/lib.sh"
start_server
# The three ways a client may check the name; s_client ends when its input does.
s_client() {
  openssl s_client -connect "localhost:$tls_port" -CAfile "$ca" -verify_return_error "$@" </dev/null >"$work/s_client" 2>&1 &&
    grep -q 'Verify return code: 0 (ok)' "$work/s_client"
}
expect "s_client verifies the chain" s_client
expect "s_client verifies the name localhost" s_client -verify_hostname localhost
expect "s_client verifies the address 127.0.0.1" s_client -verify_ip 127.0.0.1
expect "s_client with TLS 1.2" s_client -tls1_2
expect_refused "s_client refuses a name that is not ours" s_client -verify_hostname example.org
expect_refused "TLS 1.1 is refused" s_client -tls1_1
expect "openssl verify -x509_strict" openssl verify -x509_strict -CAfile "$ca" "$PLANTOPS_DATA_DIR/certs/server.crt"
stop_server

# Certificates of clients, and the list of those that are revoked.
start_server PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true
crl=$PLANTOPS_DATA_DIR/certs/ca.crl
as_client() { s_client -tls1_2 -cert "$1.crt" -key "$1.key"; }
valid() { openssl verify -x509_strict -crl_check -CAfile "$ca" -CRLfile "$crl" -purpose sslclient "$1.crt"; }
for name in bed-1 bed-2; do
  expect "certs issue $name" "$plantops" certs issue "$name"
  expect "s_client with the certificate of $name" as_client "$name"
  expect "openssl verify -crl_check of $name" valid "$name"
done
expect_refused "s_client without a certificate" s_client -tls1_2
expect "certs revoke bed-1" "$plantops" certs revoke bed-1
expect "openssl crl verifies the list" openssl crl -in "$crl" -CAfile "$ca" -noout
expect_refused "openssl verify -crl_check of bed-1, revoked" valid bed-1
expect_refused "s_client with the certificate of bed-1, revoked" as_client bed-1
expect "s_client with the certificate of bed-2" as_client bed-2
stop_server

# An authority from outside, as openssl makes it: a root that signs an authority that signs the server's certificate. A client
# that has the root alone gets the one in between from the server, in whichever file it lies.
mv "$work/data" "$work/own" # with its revocation list
out=$work/outside
mkdir "$out"
(
  cd "$out" || exit 1
  key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
  sign() { # NAME SIGNER EXTENSIONS
    key "$1"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 30 -extfile <(printf '%b' "$3") -out "$1.crt"
  }
  key root
  openssl req -x509 -new -key root.key -subj /CN=root -days 30 -addext keyUsage=critical,keyCertSign,cRLSign -out root.crt
  sign signing root 'basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n'
  sign server signing 'basicConstraints=CA:false\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n'
  cat root.crt signing.crt >both.crt
  cat server.crt signing.crt >chain.crt
  cat signing.crt server.crt >turned.crt
  chmod 600 ./*.key
) >"$work/made" 2>&1 || fail "openssl makes an authority: $(cat "$work/made")"
for files in "both server" "root chain" "root turned" "both chain"; do
  read -r authorities server <<<"$files"
  start_server PLANTOPS_CERTS_CA_CERT="$out/$authorities.crt" PLANTOPS_CERTS_SERVER_CERT="$out/$server.crt" PLANTOPS_CERTS_SERVER_KEY="$out/server.key"
  for version in -tls1_2 -tls1_3; do
    expect "ca_cert $authorities, server_cert $server: s_client with the root alone, $version" openssl s_client -connect "localhost:$tls_port" \
      -CAfile "$out/root.crt" -verify_return_error -verify_hostname localhost -x509_strict $version </dev/null
    same "the server and the one in between are sent" "$(grep -c '^ *i:' "$work/out")" 2
  done
  stop_server
done
expect_refused "without the one in between it does not start" env PLANTOPS_CERTS_CA_CERT="$out/root.crt" \
  PLANTOPS_CERTS_SERVER_CERT="$out/server.crt" PLANTOPS_CERTS_SERVER_KEY="$out/server.key" "$plantops" serve
same "and says which is missing" "$(grep -c 'CN=server was issued by CN=signing.*append it to' "$work/out")" 1

same "the keys are readable by their owner only" "$(stat -c %a "$work"/own/certs/*.key | sort -u)" 600
finish
