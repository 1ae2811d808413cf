#!/usr/bin/env bash
# Proves both connections of a running PlantOps with ordinary clients: publishes with mosquitto_pub
# over plain MQTT and over TLS with the CA, and prints PASS or FAIL for each.
#
#   MQTT_BACKEND_PASSWORD=... deploy/test_mqtt_tls.sh
#
# Environment (default): MQTT_BACKEND_PASSWORD (required), MQTT_BACKEND_USERNAME (plantops_backend),
#   MQTT_HOST (localhost), MQTT_PORT (1883), MQTT_TLS_PORT (8883), MQTT_CA_CERT (data/certs/ca.crt),
#   MQTT_CLIENT_CERT and MQTT_CLIENT_KEY (when the server requires a client certificate).
# Exit status: 0 both pass, 1 one failed, 2 something is missing.
set -u

host=${MQTT_HOST:-localhost}
port=${MQTT_PORT:-1883}
tls_port=${MQTT_TLS_PORT:-8883}
ca=${MQTT_CA_CERT:-data/certs/ca.crt}
user=${MQTT_BACKEND_USERNAME:-plantops_backend}

missing() { echo "test_mqtt_tls: $*" >&2; exit 2; }

[ -n "${MQTT_BACKEND_PASSWORD:-}" ] || missing "MQTT_BACKEND_PASSWORD is not set: give the password that the server was started with"
command -v mosquitto_pub >/dev/null || missing "mosquitto_pub is not installed: apt-get install mosquitto-clients"
[ -r "$ca" ] || missing "cannot read the CA certificate $ca: run 'make certs' or set MQTT_CA_CERT"
client=()
if [ -n "${MQTT_CLIENT_CERT:-}" ]; then
  [ -n "${MQTT_CLIENT_KEY:-}" ] || missing "MQTT_CLIENT_CERT is set but MQTT_CLIENT_KEY is not"
  client=(--cert "$MQTT_CLIENT_CERT" --key "$MQTT_CLIENT_KEY")
fi

# mosquitto_pub takes the password on its command line, which every user of this machine can see:
# it reads options from a file too, so the password goes into one that only we can read.
conf=$(mktemp -d) || exit 2
trap 'rm -rf "$conf"' EXIT
umask 077
printf -- '-u %s\n-P %s\n' "$user" "$MQTT_BACKEND_PASSWORD" >"$conf/mosquitto_pub"

failed=0
try() { # name, then arguments of mosquitto_pub
  local name=$1 out
  shift
  if out=$(XDG_CONFIG_HOME=$conf timeout 15 mosquitto_pub -h "$host" -q 1 \
    -t devices/tls-test/heartbeat -m "{\"source\":\"test_mqtt_tls.sh\"}" "$@" 2>&1); then
    echo "PASS  $name"
  else
    echo "FAIL  $name: ${out:-no answer within 15 s}"
    failed=1
  fi
}

try "plain MQTT at $host:$port" -p "$port"
try "MQTT over TLS at $host:$tls_port, CA $ca" -p "$tls_port" --cafile "$ca" ${client[@]+"${client[@]}"}
exit $failed
