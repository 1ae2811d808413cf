#!/usr/bin/env bash
# A Mosquitto that somebody has already, bridged to PlantOps with the defaults of its bridge, over TLS: both ways, without a
# message that goes round, and again after either side was restarted.
. "$(dirname "$0")/lib.sh"
broker_pid=
cleanup() { [ -z "$broker_pid" ] || kill "$broker_pid" 2>/dev/null; stop_server; rm -rf "$work"; }
trap cleanup EXIT

start_server MQTT_BACKEND_PASSWORD=interop-backend-password
printf 'bridge-password\n' | "$plantops" user add bridge --publish 'devices/#' --publish 'house/#' --subscribe 'devices/#' --subscribe 'house/#' --password-file - >/dev/null ||
  fail "user add bridge"
port=$(node -e 'const s=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})')
chmod 755 "$work"
cp "$ca" "$work/ca.crt"
cat >"$work/mosquitto.conf" <<EOC
listener $port 127.0.0.1
allow_anonymous true
connection plantops
address localhost:$tls_port
bridge_cafile $work/ca.crt
remote_username bridge
remote_password bridge-password
topic # both 1 house/ house/
topic # out 1 devices/ devices/
restart_timeout 1
EOC
start_broker() {
  mosquitto -c "$work/mosquitto.conf" >>"$work/mosquitto.log" 2>&1 &
  broker_pid=$!
  await 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
}
start_broker
bridged() { [ "$(grep -c 'client connected user=bridge' serve.log)" -ge "$1" ]; }
if await 20 bridged 1; then pass "the bridge connects"; else fail "the bridge connects"; sed 's/^/      /' "$work/mosquitto.log" | tail; fi
await 10 grep -q 'the state of a bridge is ignored' serve.log
same "its state is ignored, said once" "$(grep -c 'the state of a bridge is ignored' serve.log)" 1

there() { timeout 20 mosquitto_pub -h 127.0.0.1 -p "$port" -q 1 -t "$1" -m "$2"; }
here() { timeout 20 mosquitto_pub -h localhost -p "$tls_port" --cafile "$ca" -u plantops_backend -P interop-backend-password -q 1 -t "$1" -m "$2"; }
expect "a reading for the other broker" there devices/bed-9/telemetry '{"temperature":21.5}'
arrived() { [ "$(stored bed-9)" = "$1" ]; }
await 10 arrived 1
same "is stored here" "$(stored bed-9)" 1

listen() { timeout 30 mosquitto_sub -h 127.0.0.1 -p "$port" -t 'house/#' >"$work/heard" & listener=$!; }
listen
sleep 1 # until it has subscribed
here house/lamp on
await 10 grep -q on "$work/heard"
there house/lamp off
await 10 grep -q off "$work/heard"
sleep 1 # time for a message that goes round
same "both ways, and nothing goes round" "$(tr '\n' ' ' <"$work/heard")" "on off "
kill "$listener" 2>/dev/null
wait "$listener" 2>/dev/null

kill "$broker_pid"
wait "$broker_pid" 2>/dev/null
start_broker
if await 30 bridged 2; then pass "it comes back after a restart of Mosquitto"; else fail "it comes back after a restart of Mosquitto"; fi
there devices/bed-9/telemetry '{"temperature":22.5}' || fail "publish after the restart"
await 10 arrived 2
same "and goes on" "$(stored bed-9)" 2
finish
