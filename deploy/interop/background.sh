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
  PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS=127.0.0.1:0 PLANTOPS_HTTP_ADDRESS=off
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
same "the log goes on" "$(grep -c 'PlantOps is ready' "$work/data/plantops.log")" 1
expect "down again" down

# A server that somebody else started is left alone, also when an old PID file names it.
"$plantops" serve -c "$top/deploy/plantops.yaml" --data-dir "$work/data" >"$work/serve.log" 2>&1 &
bystander=$!
await 20 "$plantops" status --data-dir "$work/data" || fail "another server starts"
printf '%s\n%s\n' $bystander 1 >"$work/data/plantops.pid"
cd "$work" || exit 1
expect "up beside another server" up
same "says so" "$(grep -c "already running with PID $bystander: it is left alone" "$work/out")" 1
expect "down beside another server" down
same "says so too" "$(grep -c "PID $bystander is a PlantOps that was started otherwise" "$work/out")" 1
expect "and leaves it alone" kill -0 $bystander
kill $bystander
wait $bystander

# Logs are kept, up to a bound.
lines=$(wc -l <"$work/data/plantops.log")
expect "up" up
if [ "$(wc -l <"$work/data/plantops.log")" -gt "$lines" ]; then pass "the log is appended to"; else fail "the log is appended to"; fi
expect "down" down
expect "up with a log that is too large" env PLANTOPS_LOG_LIMIT=1 "$work/deploy/background.sh" up -c "$top/deploy/plantops.yaml"
expect "puts it aside" test -s "$work/data/plantops.log.1"
same "and begins another" "$(grep -c 'PlantOps is ready' "$work/data/plantops.log")" 1

# A Go that is too old is named.
mkdir "$work/old"
printf '#!/bin/sh\n[ "$1" = env ] && echo go1.19.8\n' >"$work/old/go"
chmod +x "$work/old/go"
expect_refused "a Go that is too old" env PATH="$work/old:$PATH" "$top/deploy/go-version.sh"
same "is named with the remedy" "$(grep -c 'Go 1.19.8 is too old' "$work/out")" 1
expect "the Go of this machine is new enough" "$top/deploy/go-version.sh"
finish
