#!/usr/bin/env bash
# `make interop`: real clients against the real binary. Installs what is missing (apt and npm).
set -eu
cd "$(dirname "$0")"

need() { # PACKAGE COMMAND
  command -v "$2" >/dev/null && return
  packages="${packages:-} $1"
}
need mosquitto-clients mosquitto_pub
need mosquitto mosquitto
need mosquitto mosquitto_passwd
need openssl openssl
need curl curl
need nodejs node
need npm npm
need coreutils stdbuf
if [ -n "${packages:-}" ]; then
  echo "interop: installing$packages"
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  # shellcheck disable=SC2086 # a list
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi
[ -d node_modules/mqtt ] || npm ci --silent --no-audit --no-fund

failed=
for scenario in quickstart background openssl mosquitto-clients mosquitto-bridge mqttjs external-broker import-mosquitto; do
  echo "== $scenario"
  ./$scenario.sh || failed="$failed $scenario"
done
if [ -n "$failed" ]; then
  echo "interop: FAILED:$failed"
  exit 1
fi
echo "interop: all scenarios passed"
