#!/usr/bin/env bash
# A bridge of PlantOps to a Mosquitto that somebody has already, over TLS with a password: both ways, through outages and
# restarts of either side, and what the status says when something is wrong.
. "$(dirname "$0")/lib.sh"
for needed in mosquitto mosquitto_passwd mosquitto_pub mosquitto_sub openssl; do
  command -v $needed >/dev/null || { echo "SKIP  there is no $needed here"; exit 0; }
done
broker_pid=
listener=
cleanup() { for pid in $broker_pid $listener; do kill "$pid"; wait "$pid"; done 2>/dev/null; stop_server; rm -rf "$work"; }
trap cleanup EXIT

# A Mosquitto with a certificate of an authority of its own, an account, and a listener without TLS for the test.
chmod 755 "$work"
mkdir "$work/there"
cd "$work/there" || exit 1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=there -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout server.key -out server.csr 2>/dev/null
printf 'subjectAltName=DNS:localhost\n' >server.ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.crt 2>/dev/null
mosquitto_passwd -b -c passwd box there-password
printf 'user box\ntopic readwrite #\ntopic deny house/closed\n' >acl
chmod 644 ./*
[ "$(id -u)" != 0 ] || chown -R mosquitto . # which root's Mosquitto becomes
ports=$(node -e 'const n=require("net");const a=n.createServer().listen(0,"127.0.0.1",()=>{const b=n.createServer().listen(0,"127.0.0.1",()=>{console.log(a.address().port,b.address().port);a.close();b.close()})})')
read -r there_tls there_plain <<<"$ports"
cat >mosquitto.conf <<EOC
per_listener_settings true
persistence true
persistence_location $work/there/
max_queued_messages 0
listener $there_tls
cafile $work/there/ca.crt
certfile $work/there/server.crt
keyfile $work/there/server.key
password_file $work/there/passwd
acl_file $work/there/acl
listener $there_plain 127.0.0.1
allow_anonymous true
EOC
start_broker() {
  mosquitto -c "$work/there/mosquitto.conf" >>"$work/mosquitto.log" 2>&1 &
  broker_pid=$!
  await 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$there_plain"
}
stop_broker() { kill "$broker_pid"; wait "$broker_pid" 2>/dev/null; broker_pid=; }

# configure CA PASSWORD
configure() {
  cat >"$work/plantops.yaml" <<EOC
bridges:
  - name: there
    address: localhost:$there_tls
    ca_cert: $1
    username: box
    password: $2
    client_id: plantops-box
    topics:
      - {filter: "#", direction: both, qos: 2, local_prefix: house/, remote_prefix: house/}
      - {filter: devices/+/telemetry, direction: in, local_prefix: "", remote_prefix: ""}
      - {filter: devices/+/telemetry, direction: out, remote_prefix: box/}
EOC
}
start() { start_server MQTT_BACKEND_PASSWORD=interop-backend-password "$@"; }
status_says() { "$plantops" status 2>&1 | tr -s ' \n' ' ' | grep -qi -- "$1"; }
bridge_is() { "$plantops" status --json | tr -d ' \n' | grep -q "\"bridges\":\[{\"name\":\"there\",\"broker\":\"localhost:$there_tls\",\"connected\":$1"; }
there() { timeout 20 mosquitto_pub -h 127.0.0.1 -p "$there_plain" -q "${3:-1}" -t "$1" -m "$2"; }
here() { timeout 20 mosquitto_pub -h localhost -p "$tls_port" --cafile "$ca" -u plantops_backend -P interop-backend-password -q "${3:-1}" -t "$1" -m "$2"; }

start_broker
configure "$work/there/ca.crt" there-password
start
if await 20 bridge_is true; then pass "the bridge connects"; else fail "the bridge connects"; tail "$work/mosquitto.log" | sed 's/^/      /'; fi
add_device bed-1

mosquitto_sub -h 127.0.0.1 -p "$there_plain" -V 5 -i listener -c -x 3600 -q 2 -t '#' -F '%t %p' >"$work/heard" 2>/dev/null &
listener=$!
await 10 grep -q 'as listener' "$work/mosquitto.log"
sleep 1 # until it has subscribed
for qos in 0 1 2; do
  here house/lamp "on-$qos" $qos
  await 10 grep -q "house/lamp on-$qos" "$work/heard"
done
same "messages go there, at each QoS" "$(tr '\n' ' ' <"$work/heard")" "house/lamp on-0 house/lamp on-1 house/lamp on-2 "
timeout 20 mosquitto_pub -h localhost -p "$tls_port" --cafile "$ca" -u bed-1 -P "$secret" -q 1 -t devices/bed-1/telemetry -m '{"temperature":21.5}'
if await 10 grep -q 'box/devices/bed-1/telemetry {"temperature":21.5}' "$work/heard"; then pass "a reading goes there, with its prefix"; else fail "a reading goes there"; fi
there devices/bed-9/telemetry '{"temperature":22.5}'
arrived() { [ "$(stored bed-9)" = "$1" ]; }
await 10 arrived 1
same "a reading from there is stored here" "$(stored bed-9)" 1
sleep 1 # time for a message that goes round
same "nothing goes round" "$(grep -c . "$work/heard")" 5

# Retained messages stay so, and what there is already comes too.
timeout 20 mosquitto_pub -h 127.0.0.1 -p "$there_plain" -q 1 -r -t house/door -m open
kept() { timeout 5 mosquitto_sub -h localhost -p "$tls_port" --cafile "$ca" -u plantops_backend -P interop-backend-password -t house/door -C 1 -F '%r %p' | grep -qx "1 open"; }
if await 20 kept; then pass "a retained message is retained here"; else fail "a retained message is retained here"; fi

# The other broker is away: what comes meanwhile waits here, and arrives in order.
kill "$listener"; wait "$listener" 2>/dev/null; listener=
stop_broker
await 10 bridge_is false
if await 10 status_says 'nothing listens there'; then pass "the status says that it is away, and why"; else fail "the status says that it is away"; "$plantops" status; fi
seq 1 300 | timeout 60 mosquitto_pub -h localhost -p "$tls_port" --cafile "$ca" -u plantops_backend -P interop-backend-password -q 1 -t house/n -l
if await 10 status_says '300 waiting'; then pass "the status says how many wait"; else fail "the status says how many wait"; "$plantops" status; fi
start_broker
mosquitto_sub -h 127.0.0.1 -p "$there_plain" -V 5 -i listener -c -x 3600 -q 2 -t '#' -F '%t %p' >>"$work/heard" 2>/dev/null &
listener=$!
all() { [ "$(grep -c '^house/n ' "$work/heard")" -ge 300 ]; }
await 60 all
same "all that waited arrives, in order" "$(sed -n 's/^house\/n //p' "$work/heard" | tr '\n' ' ')" "$(seq 1 300 | tr '\n' ' ')"

# We are away: what comes meanwhile waits there.
stop_server
for i in 1 2 3; do there devices/bed-9/telemetry "{\"temperature\":$i}"; done
start
await 20 arrived 4
same "what waited there arrives after our restart" "$(stored bed-9)" 4

# What is wrong is said in words.
stop_server
configure "$ca" there-password
start
if await 20 status_says 'set ca_cert to the certificate of the authority'; then pass "a wrong authority is said"; else fail "a wrong authority is said"; "$plantops" status; fi
stop_server
configure "$work/there/ca.crt" guessed
start
if await 20 status_says 'check username ("box") and password'; then pass "a wrong password is said"; else fail "a wrong password is said"; "$plantops" status; fi
configure "$work/there/ca.crt" there-password
kill -HUP "$server_pid"
if await 20 bridge_is true; then pass "a right one is taken over with SIGHUP"; else fail "a right one is taken over with SIGHUP"; fi
here house/closed on
if await 20 status_says '1 refused' && status_says 'house/closed, not authorised'; then pass "a message that may not go there is left, and counted"; else fail "a message that may not go there is left"; "$plantops" status; fi
finish
