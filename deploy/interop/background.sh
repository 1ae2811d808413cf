#!/usr/bin/env bash
# `make up` and `make down` without Docker: ready is ready whatever the log says, and a PID that is another program's
# by now is left alone.
. "$(dirname "$0")/lib.sh"
bystander=
cleanup() {
  [ -z "$bystander" ] || kill "$bystander" 2>/dev/null
  "$work/deploy/background.sh" down >/dev/null 2>&1
  rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work/deploy" "$work/bin"
cp "$top/deploy/background.sh" "$work/deploy/"
ln -s "$plantops" "$work/bin/plantops"
export PLANTOPS_LISTENERS_TCP_ADDRESS=127.0.0.1:0 PLANTOPS_LISTENERS_TLS_ADDRESS=127.0.0.1:0 \
  PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS=127.0.0.1:0
up() { "$work/deploy/background.sh" up -c "$top/deploy/plantops.yaml"; }
down() { "$work/deploy/background.sh" down; }

expect "up, with a log that says little" env LOG_LEVEL=error "$work/deploy/background.sh" up -c "$top/deploy/plantops.yaml"
expect "up again changes nothing" up
same "and says so" "$(grep -c 'already running' "$work/out")" 1
expect "down" down
expect_refused "no server is left" "$plantops" status --data-dir "$work/data"

sleep 600 &
bystander=$!
echo $bystander >"$work/data/plantops.pid"
expect "down with the PID of another program" down
expect "leaves that program alone" kill -0 $bystander
echo $bystander >"$work/data/plantops.pid"
expect "up with the PID of another program" up
expect "starts a server" "$plantops" status --data-dir "$work/data"
finish
