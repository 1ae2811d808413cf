# Shared by the interop scenarios: start a PlantOps on free ports in a folder of its own, and say what passed.
# A scenario sources this file, calls `pass` or `fail` for each claim, and ends with `finish`.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
plantops=$top/bin/plantops
work=$(mktemp -d)
server_pid=
failures=0
trap 'stop_server; rm -rf "$work"' EXIT

pass() { printf 'PASS  %s\n' "$1"; }
fail() { printf 'FAIL  %s\n' "$1"; failures=$((failures + 1)); }
# expect NAME COMMAND...: the command succeeds. expect_refused NAME COMMAND...: it does not.
expect() { local name=$1; shift; if "$@" >"$work/out" 2>&1; then pass "$name"; else fail "$name"; sed 's/^/      /' "$work/out"; fi; }
expect_refused() { local name=$1; shift; if "$@" >"$work/out" 2>&1; then fail "$name: was accepted"; else pass "$name"; fi; }
same() { if [ "$2" = "$3" ]; then pass "$1"; else fail "$1: got '$2', wanted '$3'"; fi; }
# await SECONDS COMMAND...: until the command succeeds.
await() {
  local until=$(($(date +%s) + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt $until ] || return 1
    sleep 0.05
  done
}
finish() { if [ $failures -ne 0 ]; then sed 's/^/      log: /' "$work"/serve.log 2>/dev/null | tail -n 40; exit 1; fi; }

# start_server [NAME=VALUE...]: returns when it is ready; sets tcp_port, tls_port and ws_port.
start_server() {
  export PLANTOPS_DATA_DIR=$work/data
  cd "$work" || exit 1
  : >serve.log
  env PLANTOPS_LISTENERS_TCP_ADDRESS=127.0.0.1:0 PLANTOPS_LISTENERS_TLS_ADDRESS=:0 \
    PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS=127.0.0.1:0 PLANTOPS_HTTP_ADDRESS=off MQTT_USE_TLS=true "$@" \
    "$plantops" serve >>serve.log 2>&1 &
  server_pid=$!
  if ! await 20 grep -q 'PlantOps is ready' serve.log; then
    fail "serve becomes ready"
    finish
  fi
  # The listeners report in the order plain, TLS, websocket.
  read -r tcp_port tls_port < <(sed -n 's/.*Opening ipv4 listen socket on port \([0-9]*\)\..*/\1/p' serve.log | tr '\n' ' ')
  ws_port=$(sed -n 's/.*Opening websockets listen socket on port \([0-9]*\)\..*/\1/p' serve.log)
  ca=$PLANTOPS_DATA_DIR/certs/ca.crt
}

stop_server() {
  [ -n "$server_pid" ] || return 0
  kill "$server_pid" 2>/dev/null
  wait "$server_pid" 2>/dev/null
  server_pid=
}

# add_device ID: sets secret.
add_device() { secret=$("$plantops" device add "$1" --json | sed -n 's/.*"mqtt_password": *"\([^"]*\)".*/\1/p'); }
# add_user NAME: one that may do everything but read $SYS; its password is NAME-password.
add_user() { "$plantops" user add "$1" --publish '#' --subscribe '#' --password-file - <<<"$1-password" >/dev/null || fail "user add $1"; }
# stored DEVICE: how many values of the metric `temperature` are in the database.
stored() { "$plantops" readings "$1" --metric temperature --since 24h --format csv | tail -n +2 | wc -l | tr -d ' '; }
