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
same "the keys are readable by their owner only" "$(stat -c %a "$PLANTOPS_DATA_DIR"/certs/*.key | sort -u)" 600
finish
