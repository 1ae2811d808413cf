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
need g++ g++ # for the library in deploy/esp32, which go test compiles
need procps ps
/usr/bin/python3 -c 'import paho.mqtt.client' 2>/dev/null || packages="${packages:-} python3-paho-mqtt"
/usr/bin/python3 -c 'import yaml' 2>/dev/null || packages="${packages:-} python3-yaml"
if [ -n "${packages:-}" ]; then
  echo "interop: installing$packages"
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  # Debian starts what it installs, and Mosquitto would take port 1883 from PlantOps: now, and after the next boot.
  policy=/usr/sbin/policy-rc.d
  ours=
  if [ ! -e $policy ]; then
    ours=yes
    trap '$sudo rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
  fi
  $sudo apt-get update -qq
  # shellcheck disable=SC2086 # a list
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
  [ -z "$ours" ] || $sudo rm -f $policy
  trap - EXIT
  case " $packages " in *" mosquitto "*)
    if command -v systemctl >/dev/null; then
      $sudo systemctl disable --quiet mosquitto 2>/dev/null || true
      echo "interop: the service mosquitto is installed, but not started and not enabled"
    fi
    ;;
  esac
fi
nodered=4.1.15
[ "$(sed -n 's/^ *"version": "\(.*\)",$/\1/p' nodered/node_modules/node-red/package.json 2>/dev/null)" = $nodered ] ||
  npm install --prefix nodered --no-save --no-package-lock --silent --no-audit --no-fund node-red@$nodered
{ [ -d node_modules/mqtt ] && [ -d node_modules/mqtt4 ]; } || npm ci --silent --no-audit --no-fund

failed=
for scenario in quickstart background device-add-for openssl mosquitto-clients mosquitto-sessions mosquitto-bridge plantops-bridge mqttjs paho external-broker import-mosquitto; do
  echo "== $scenario"
  ./$scenario.sh || failed="$failed $scenario"
done
if [ -n "$failed" ]; then
  echo "interop: FAILED:$failed"
  exit 1
fi
echo "interop: all scenarios passed"
