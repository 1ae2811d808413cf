#!/usr/bin/env bash
# MQTT.js, the client of browsers and Node-RED: plain, TLS and websocket, versions 4 and 5.
. "$(dirname "$0")/lib.sh"
start_server
add_device bed-1
expect "MQTT.js" node "$top/deploy/interop/mqttjs.mjs" "$tcp_port" "$tls_port" "$ws_port" "$ca" bed-1 "$secret"
sed 's/^/      /' "$work/out"
all_stored() { [ "$(stored bed-1)" = 18 ]; }
await 10 all_stored
same "every reading is in the database" "$(stored bed-1)" 18
finish
