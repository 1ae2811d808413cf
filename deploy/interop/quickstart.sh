#!/usr/bin/env bash
# Runs the commands of README's quick start as they stand there, in a copy of the checkout, so that
# README stays true. The block marked `terminal 1` stays running while the other one runs.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
server=
cleanup() { [ -z "$server" ] || { kill -TERM -- -"$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }; rm -rf "$work"; }
trap cleanup EXIT

# The checkout as git knows it, with what is not committed yet, but without data/ and bin/.
(cd "$top" && git ls-files -co --exclude-standard -z | tar --null -T - -cf - 2>/dev/null) | tar -xf - -C "$work"
block() { awk -v start="<!-- quickstart: $1 -->" '$0 == start {on=1} on && /^```$/ {exit} on && !/^```/ && !/^<!--/' "$top/README.md"; }
block "terminal 1" >"$work/terminal1.sh"
block "terminal 2" >"$work/terminal2.sh"
[ -s "$work/terminal1.sh" ] && [ -s "$work/terminal2.sh" ] || { echo "FAIL  README has both quick start blocks"; exit 1; }

cd "$work"
setsid bash -e terminal1.sh >terminal1.log 2>&1 &
server=$!
for _ in $(seq 1200); do
  grep -q 'PlantOps is ready' terminal1.log && break
  kill -0 $server 2>/dev/null || break
  sleep 0.25
done
grep -q 'PlantOps is ready' terminal1.log || { echo "FAIL  README, terminal 1"; tail -n 20 terminal1.log; exit 1; }
echo "PASS  README, terminal 1: ready"
if timeout 120 bash -e terminal2.sh >terminal2.log 2>&1 && grep -q '22.5' terminal2.log; then
  echo "PASS  README, terminal 2: the reading is shown"
else
  echo "FAIL  README, terminal 2"
  cat terminal2.log
  exit 1
fi
