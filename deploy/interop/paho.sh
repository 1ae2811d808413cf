#!/usr/bin/env bash
# Debian's paho for Python (callbacks of version 1, as Home Assistant's users have them): MQTT 3.1, 3.1.1 and 5, over TCP, TLS and websocket.
. "$(dirname "$0")/lib.sh"
start_server
add_user home
expect "paho for Python" timeout 120 /usr/bin/python3 "$top/deploy/interop/paho_client.py" "$tcp_port" "$tls_port" "$ws_port" "$ca" home home-password
sed 's/^/      /' "$work/out"
finish
