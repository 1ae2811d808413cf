#!/usr/bin/env bash
# MQTT.js, the client of browsers, Node-RED and Zigbee2MQTT: versions 5 and 4 of it, over plain TCP, TLS and websocket, in MQTT 3.1.1 and 5.
. "$(dirname "$0")/lib.sh"
start_server
add_device bed-1
add_user home
expect "MQTT.js" timeout 120 node "$top/deploy/interop/mqttjs.mjs" "$tcp_port" "$tls_port" "$ws_port" "$ca" bed-1 "$secret" home home-password
sed 's/^/      /' "$work/out"
all_stored() { [ "$(stored bed-1)" = 36 ]; }
await 10 all_stored
same "every reading is in the database" "$(stored bed-1)" 36
finish
