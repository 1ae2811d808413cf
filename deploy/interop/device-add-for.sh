#!/usr/bin/env bash
# `device add --for FORM`, each form as far as this machine can: python, mosquitto and nodered run as they are printed and
# their reading is stored; main.py for MicroPython runs under CPython, with stubs for the board and umqtt; the sketch is
# compiled with the library against stubs of the core; esphome is parsed as YAML. What Tasmota's console would
# take is checked by go test, as is the syntax of all of them.
. "$(dirname "$0")/lib.sh"
here=$top/deploy/interop
python=/usr/bin/python3
children=()
cleanup() { for pid in "${children[@]}"; do kill "$pid" 2>/dev/null; done; stop_server; rm -rf "$work"; }
trap cleanup EXIT
start_server

# paste FORM: registers the device FORM-1 and writes what it prints into $work/FORM.
paste() { "$plantops" device add "$1-1" --for "$1" --host localhost >"$work/$1" 2>"$work/$1.said"; }
# arrives FORM SECONDS: its reading is stored.
arrived() { [ "$(stored "$1")" -ge 1 ]; }
arrives() { if await "$2" arrived "$1-1"; then pass "$1: the reading is stored"; else fail "$1: the reading is stored"; fi; }

paste mosquitto
expect "mosquitto: the script runs" sh "$work/mosquitto"
arrives mosquitto 5
sed 's/-P .[^ ]*/-P wrong-password/' "$work/mosquitto" >"$work/mosquitto.wrong"
expect_refused "mosquitto: with a wrong password it fails" sh "$work/mosquitto.wrong"

paste python
expect "python: the program runs" timeout 60 "$python" "$work/python" --once
arrives python 5
# A server of another authority is not talked to.
other=$work/other
"$plantops" certs init --data-dir "$other" >/dev/null 2>&1
awk -v ca="$other/certs/ca.crt" '/^CA = """/ {print; while ((getline line <ca) > 0) print line; print "\"\"\""; skip = 1; next} skip && /"""$/ {skip = 0; next} !skip' \
  "$work/python" >"$work/python.other"
expect "python: the changed program is one" "$python" -m py_compile "$work/python.other"
expect_refused "python: with another CA it does not connect" timeout 10 "$python" "$work/python.other" --once

paste micropython
expect "micropython: main.py compiles" "$python" -m py_compile "$work/micropython"
PYTHONPATH=$here/stubs/micropython "$python" "$work/micropython" >"$work/micropython.log" 2>&1 &
children+=($!)
arrives micropython 20
[ ! -s "$work/micropython.log" ] || fail "micropython: $(cat "$work/micropython.log")"

paste arduino
"$plantops" device add arduino-2 --for arduino --host localhost --dir "$work/sketches" >/dev/null 2>&1 || fail "arduino: sketch and library are written"
same "arduino: what is printed is what is written, but for name and password" "$(sed 's/arduino-1/arduino-2/; /config.password/d' "$work/arduino")" \
  "$(sed '/config.password/d' "$work/sketches/arduino-2/arduino-2.ino")"
for core in 4 5; do
  expect "arduino: the sketch compiles with the library and IDF $core" g++ -x c++ -std=gnu++11 -fsyntax-only -Wall -Wextra -Werror -DARDUINO_ARCH_ESP32 -DSTUB_IDF=$core \
    -I "$top/deploy/esp32/test/stubs" -I "$work/sketches/libraries/PlantOps/src" -include Arduino.h "$work/sketches/arduino-2/arduino-2.ino"
done

paste esphome
expect "esphome: the configuration is YAML with our CA" "$python" - "$work/esphome" "$ca" <<'END'
import ssl, sys, yaml
yaml.SafeLoader.add_constructor("!secret", lambda loader, node: loader.construct_scalar(node))
config = yaml.safe_load(open(sys.argv[1]))
assert config["mqtt"]["certificate_authority"] == open(sys.argv[2]).read()
ssl.create_default_context(cadata=config["mqtt"]["certificate_authority"])
END

paste tasmota
expect "tasmota: the fingerprint is that of a key of the server" bash -c '
  wanted=$(sed -n "s/.*MqttFingerprint1 \(.*\)/\1/p" "$1")
  for certificate in "$2"/server*.crt; do
    if openssl x509 -in "$certificate" -noout -text | grep -q rsaEncryption; then
      hashed="000000077373682d727361 00000003010001 00000100 $(openssl x509 -in "$certificate" -noout -modulus | cut -d= -f2)"
    else
      hashed="0000001365636473612d736861322d6e69737470323536 00000041 $(openssl x509 -in "$certificate" -noout -pubkey | openssl pkey -pubin -outform DER | tail -c 65 | od -An -v -tx1 | tr -d " \n")"
    fi
    made=$(printf %s "$hashed" | tr -d " \n" | sed "s/../\\\\x&/g" | xargs -0 printf "%b" | openssl dgst -sha1 -r | cut -c1-40 | tr a-f A-F | sed "s/../& /g; s/ \$//")
    [ "$made" != "$wanted" ] || exit 0
  done
  echo "wanted $wanted"; exit 1' - "$work/tasmota" "$PLANTOPS_DATA_DIR/certs"

paste nodered
nodered_port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir "$work/nodered-home"
echo 'module.exports = {uiHost: "127.0.0.1", credentialSecret: "interop", logging: {console: {level: "warn"}}};' >"$work/nodered-home/settings.js"
node "$here/nodered/node_modules/node-red/red.js" --userDir "$work/nodered-home" --port "$nodered_port" >"$work/nodered.log" 2>&1 &
children+=($!)
expect "nodered: it starts" await 60 curl -sf "http://127.0.0.1:$nodered_port/flows"
expect "nodered: it takes the flow" curl -sf -X POST "http://127.0.0.1:$nodered_port/flows" -H 'Content-Type: application/json' -H 'Node-RED-Deployment-Type: full' --data-binary "@$work/nodered"
arrives nodered 30

expect "status: nothing was lost" "$plantops" status
# The quick way: --wait sees the first reading of a device that is pasted right away.
"$plantops" device add waiting-1 --for mosquitto --host localhost --wait=30s >"$work/waiting" 2>"$work/waiting.said" &
waiting=$!
expect "wait: the script is printed at once" await 10 grep -q waiting-1/telemetry "$work/waiting"
expect "wait: the script runs" sh "$work/waiting"
if wait $waiting && grep -q '✓ the first reading of waiting-1 is stored: temperature 21.5' "$work/waiting.said"; then
  pass "wait: the first reading is seen"
else
  fail "wait: the first reading is seen: $(cat "$work/waiting.said")"
fi
finish
