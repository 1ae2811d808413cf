#!/usr/bin/env bash
# PlantOps as the subscriber of somebody's existing Mosquitto, over TLS: the broker is restarted
# RESTARTS times (default 2; the long form is 10) and the subscriber comes back each time.
. "$(dirname "$0")/lib.sh"
restarts=${RESTARTS:-2}
broker_pid=
cleanup() { [ -z "$broker_pid" ] || kill "$broker_pid" 2>/dev/null; stop_server; rm -rf "$work"; }
trap cleanup EXIT

export PLANTOPS_DATA_DIR=$work/authority
"$plantops" certs init >/dev/null 2>&1 || fail "certs init"
certs=$work/authority/certs
chmod 755 "$work"
cp -r "$certs" "$work/broker-certs"
chmod 644 "$work"/broker-certs/*
: >"$work/passwd"
mosquitto_passwd -b "$work/passwd" plantops_backend external-password
chmod 644 "$work/passwd"
# A port that is free now.
port=$(node -e 'const s=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})')
cat >"$work/mosquitto.conf" <<EOF
listener $port 127.0.0.1
cafile $work/broker-certs/ca.crt
certfile $work/broker-certs/server.crt
keyfile $work/broker-certs/server.key
allow_anonymous false
password_file $work/passwd
EOF
start_broker() {
  mosquitto -c "$work/mosquitto.conf" >>"$work/mosquitto.log" 2>&1 &
  broker_pid=$!
  await 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
}
start_broker

export PLANTOPS_DATA_DIR=$work/data
cd "$work" || exit 1
env PLANTOPS_LISTENERS_TCP_ENABLED=false PLANTOPS_LISTENERS_TLS_ENABLED=false PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=false PLANTOPS_HTTP_ADDRESS=off \
  MQTT_HOST=localhost MQTT_USE_TLS=true MQTT_TLS_PORT="$port" MQTT_CA_CERT="$certs/ca.crt" MQTT_BACKEND_PASSWORD=external-password \
  "$plantops" serve >serve.log 2>&1 &
server_pid=$!
await 20 grep -q 'PlantOps is ready' serve.log || fail "serve becomes ready with an external broker"

now=$(date +%s)
published=0
publish() {
  published=$((published + 1))
  timeout 20 mosquitto_pub -h localhost -p "$port" --cafile "$certs/ca.crt" -u plantops_backend -P external-password -q 1 \
    -t devices/ext-1/telemetry -m "{\"timestamp\":$((now - 1000 + published)),\"temperature\":$published}"
}
arrived() { [ "$(stored ext-1)" = "$published" ]; }
expect "publish through Mosquitto" publish
await 10 arrived
same "the reading is in the database" "$(stored ext-1)" "$published"

connected() { [ "$(grep -c 'subscribed' serve.log)" -gt "$1" ]; }
for i in $(seq "$restarts"); do
  before=$(grep -c 'subscribed' serve.log)
  kill "$broker_pid"
  wait "$broker_pid" 2>/dev/null
  start_broker
  if await 30 connected "$before"; then pass "restart $i: the subscriber is back"; else fail "restart $i: the subscriber is back"; fi
  publish || fail "publish after restart $i"
  await 10 arrived
  same "restart $i: the reading is in the database" "$(stored ext-1)" "$published"
done
same "every connection used TLS" "$(grep -c 'Connecting to MQTT broker at' serve.log)" 0
grep -E 'Connecting to MQTT broker|again in|wait' serve.log | sed 's/^/      /' | tail -n 8
finish
