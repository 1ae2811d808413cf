#!/usr/bin/env bash
# mosquitto_pub and mosquitto_sub against PlantOps: every version, every QoS, plain and TLS; who is
# refused; retained messages, wills, shared subscriptions and a small Receive Maximum.
. "$(dirname "$0")/lib.sh"
start_server MQTT_BACKEND_PASSWORD=interop-backend-password
add_device bed-1

plain=(-h localhost -p "$tcp_port")
tls=(-h localhost -p "$tls_port" --cafile "$ca")
device=(-u bed-1 -P "$secret")
backend=(-u plantops_backend -P interop-backend-password)
now=$(date +%s)
count=0

for version in mqttv31 mqttv311 mqttv5; do
  for qos in 0 1 2; do
    for way in plain tls; do
      declare -n where=$way
      count=$((count + 1))
      expect "publish $version QoS $qos $way" timeout 20 mosquitto_pub -V $version "${where[@]}" "${device[@]}" -q $qos \
        -t devices/bed-1/telemetry -m "{\"timestamp\":$((now - 1000 + count)),\"temperature\":$count.5}"
    done
  done
done
all_stored() { [ "$(stored bed-1)" = "$count" ]; }
await 10 all_stored
same "every reading is in the database" "$(stored bed-1)" "$count"
expect "heartbeat" timeout 20 mosquitto_pub "${tls[@]}" "${device[@]}" -q 1 -t devices/bed-1/heartbeat -m '{}'

for way in plain tls; do
  declare -n where=$way
  expect_refused "$way: wrong password" timeout 20 mosquitto_pub "${where[@]}" -u bed-1 -P wrong -q 1 -t devices/bed-1/telemetry -m '{}'
  expect_refused "$way: no password" timeout 20 mosquitto_pub "${where[@]}" -u bed-1 -q 1 -t devices/bed-1/telemetry -m '{}'
  expect_refused "$way: anonymous" timeout 20 mosquitto_pub "${where[@]}" -q 1 -t devices/bed-1/telemetry -m '{}'
  expect_refused "$way: unknown user" timeout 20 mosquitto_pub "${where[@]}" -u nobody -P x -q 1 -t devices/bed-1/telemetry -m '{}'
  expect_refused "$way: another device's topic" timeout 20 mosquitto_pub -V mqttv311 "${where[@]}" "${device[@]}" -q 1 \
    -t devices/bed-2/telemetry -m '{"temperature":1}'
done
same "nothing of it was stored for bed-2" "$("$plantops" readings --metric temperature --format csv 2>/dev/null | grep -c ',bed-2,')" 0
expect_refused "TLS without the CA" timeout 20 mosquitto_pub -h localhost -p "$tls_port" --capath /etc/ssl/certs "${device[@]}" \
  -q 1 -t devices/bed-1/heartbeat -m '{}'

expect "test_mqtt_tls.sh passes" env MQTT_BACKEND_PASSWORD=interop-backend-password MQTT_PORT="$tcp_port" \
  MQTT_TLS_PORT="$tls_port" MQTT_CA_CERT="$ca" "$top/deploy/test_mqtt_tls.sh"
expect_refused "test_mqtt_tls.sh fails with a wrong password" env MQTT_BACKEND_PASSWORD=wrong MQTT_PORT="$tcp_port" \
  MQTT_TLS_PORT="$tls_port" MQTT_CA_CERT="$ca" "$top/deploy/test_mqtt_tls.sh"

expect "publish retained" timeout 20 mosquitto_pub "${tls[@]}" "${backend[@]}" -q 1 -r -t devices/bed-1/config -m '{"interval":60}'
same "a device gets its retained message" \
  "$(timeout 20 mosquitto_sub "${tls[@]}" "${device[@]}" -q 1 -C 1 -t 'devices/bed-1/#' 2>&1)" '{"interval":60}'

# subscribed FILE ARGUMENTS...: mosquitto_sub in the background; returns when its SUBACK is there.
subscribed() {
  local out=$1; shift
  timeout 60 stdbuf -oL mosquitto_sub -d "$@" >"$out" 2>&1 &
  await 10 grep -q 'Subscribed (mid' "$out" || fail "mosquitto_sub $* subscribes"
}
# Lines that the subscriber got: -d prints its own talk as well, payloads here start with "m".
received() { grep -c '^m[0-9]' "$1"; }
has() { [ "$(received "$1")" -ge "$2" ]; }

subscribed "$work/small" -V mqttv5 "${plain[@]}" "${backend[@]}" -D connect receive-maximum 1 -q 1 -t devices/bed-1/notes -C 500
seq -f 'm%g' 500 | timeout 60 mosquitto_pub "${plain[@]}" "${backend[@]}" -q 1 -t devices/bed-1/notes -l
await 20 has "$work/small" 500
same "500 messages to a subscriber with Receive Maximum 1, in order" \
  "$(grep '^m[0-9]' "$work/small" | tr '\n' ' ')" "$(seq -f 'm%g' 500 | tr '\n' ' ')"

subscribed "$work/share1" "${plain[@]}" "${backend[@]}" -q 1 -t '$share/g/devices/bed-1/shared'
first=$!
subscribed "$work/share2" "${plain[@]}" "${backend[@]}" -q 1 -t '$share/g/devices/bed-1/shared'
second=$!
seq -f 'm%g' 100 | timeout 20 mosquitto_pub "${tls[@]}" "${backend[@]}" -q 1 -t devices/bed-1/shared -l
both() { [ $(($(received "$work/share1") + $(received "$work/share2"))) -ge 100 ]; }
await 10 both
same "a shared subscription gets each message once" $(($(received "$work/share1") + $(received "$work/share2"))) 100
kill $first $second 2>/dev/null

subscribed "$work/will" "${plain[@]}" "${backend[@]}" -q 1 -t devices/bed-1/status -C 1
stdbuf -oL mosquitto_sub "${tls[@]}" "${device[@]}" -t devices/bed-1/commands --will-topic devices/bed-1/status \
  --will-payload m0 --will-qos 1 -d >"$work/dying" 2>&1 &
dying=$!
await 10 grep -q 'Subscribed (mid' "$work/dying" || fail "the device with a will subscribes"
disown $dying
kill -9 $dying
await 10 has "$work/will" 1
same "the will of a device that dies is delivered" "$(received "$work/will")" 1
expect_refused "a will on another device's topic" timeout 20 mosquitto_sub "${tls[@]}" "${device[@]}" -E -t devices/bed-1/commands \
  --will-topic devices/bed-2/status --will-payload x

expect "device remove" "$plantops" device remove bed-1
expect_refused "a removed device" timeout 20 mosquitto_pub "${tls[@]}" "${device[@]}" -q 1 -t devices/bed-1/heartbeat -m '{}'
finish
