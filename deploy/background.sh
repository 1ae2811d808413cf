#!/usr/bin/env bash
# What `make up`, `make down` and `make logs` do where no Docker engine runs: `plantops serve` as a
# plain background process, with its PID and log under data/.
set -eu
cd "$(dirname "$0")/.."
pid_file=data/plantops.pid
log_file=data/plantops.log

# After a crash or a reboot the PID may be another program's: that one is not ours to stop.
running() {
  [ -s "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null &&
    { tr '\0' ' ' <"/proc/$(cat "$pid_file")/cmdline" || ps -o args= -p "$(cat "$pid_file")"; } 2>/dev/null | grep -q 'plantops serve'
}

case ${1:-} in
up)
  shift
  if running; then
    echo "PlantOps is already running with PID $(cat "$pid_file")"
    exit 0
  fi
  mkdir -p data
  echo "No Docker engine: starting plantops serve in the background, PID in $pid_file, log in $log_file"
  (umask 077; : >"$log_file")
  nohup ./bin/plantops serve "$@" >>"$log_file" 2>&1 </dev/null &
  pid=$!
  echo $pid >"$pid_file"
  for _ in $(seq 300); do
    # Not by the log alone: log.level may keep the line out of it.
    if ./bin/plantops status "$@" --json 2>/dev/null | grep -q '"running": true'; then
      grep 'PlantOps is ready' "$log_file" || echo "PlantOps is ready"
      exit 0
    fi
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
  done
  echo "PlantOps did not become ready; the end of $log_file:" >&2
  tail -n 20 "$log_file" >&2
  if kill -0 $pid 2>/dev/null; then
    echo "It is still trying, with PID $pid: 'make logs' shows how, 'make down' ends it" >&2
    exit 1
  fi
  rm -f "$pid_file"
  exit 1
  ;;
down)
  if ! running; then
    echo "PlantOps is not running"
    rm -f "$pid_file"
    exit 0
  fi
  pid=$(cat "$pid_file")
  kill "$pid"
  for _ in $(seq 150); do
    kill -0 "$pid" 2>/dev/null || { rm -f "$pid_file"; echo "PlantOps stopped"; exit 0; }
    sleep 0.1
  done
  echo "PlantOps (PID $pid) did not stop within 15 s" >&2
  exit 1
  ;;
logs)
  [ -e "$log_file" ] || { echo "no $log_file: start with 'make up'" >&2; exit 1; }
  exec tail -n 100 -f "$log_file"
  ;;
*)
  echo "usage: deploy/background.sh up [ARGUMENTS OF serve]|down|logs" >&2
  exit 2
  ;;
esac
