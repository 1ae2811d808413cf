#!/usr/bin/env bash
# What `make up`, `make down` and `make logs` do where no Docker engine runs: `plantops serve` as a
# plain background process, with its PID and log under data/.
set -eu
cd "$(dirname "$0")/.."
pid_file=data/plantops.pid
log_file=data/plantops.log
log_limit=${PLANTOPS_LOG_LIMIT:-10000000} # bytes; a larger log is put aside at the next start, three of them are kept

# When a process was started, in whatever unit: together with the PID it names one process for ever.
started() { { [ -r "/proc/$1/stat" ] && sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20; } 2>/dev/null || ps -o lstart= -p "$1" 2>/dev/null || true; }

# After a crash or a reboot the PID may be another program's, or that of a server that somebody else started: neither is
# ours to stop. A file from before 2026-12 has no second line.
running() {
  [ -s "$pid_file" ] || return 1
  pid=$(sed -n 1p "$pid_file")
  since=$(sed -n 2p "$pid_file")
  kill -0 "$pid" 2>/dev/null &&
    { tr '\0' ' ' <"/proc/$pid/cmdline" || ps -o args= -p "$pid"; } 2>/dev/null | grep -q 'plantops serve' &&
    { [ -z "$since" ] || [ "$since" = "$(started "$pid")" ]; }
}

# The PID of whatever server answers in the data directory; empty when none does. Not by its exit code: it may be unwell.
answering() {
  ./bin/plantops status "$@" --json 2>/dev/null | grep -q '"running": true' || return 0
  ./bin/plantops status "$@" --json 2>/dev/null | sed -n 's/^  "pid": \([0-9]*\),*$/\1/p'
}

rotate() {
  [ -e "$log_file" ] && [ "$(wc -c <"$log_file")" -ge "$log_limit" ] || return 0
  [ ! -e "$log_file.2" ] || mv "$log_file.2" "$log_file.3"
  [ ! -e "$log_file.1" ] || mv "$log_file.1" "$log_file.2"
  mv "$log_file" "$log_file.1"
}

case ${1:-} in
up)
  shift
  if running; then
    echo "PlantOps is already running with PID $pid"
    exit 0
  fi
  other=$(answering "$@")
  if [ -n "$other" ]; then
    echo "A PlantOps that was not started by 'make up' is already running with PID $other: it is left alone"
    exit 0
  fi
  mkdir -p data
  rotate
  (umask 077; : >>"$log_file")
  before=$(wc -c <"$log_file")
  echo "No Docker engine: starting plantops serve in the background, PID in $pid_file, log in $log_file"
  nohup ./bin/plantops serve "$@" >>"$log_file" 2>&1 </dev/null &
  pid=$!
  printf '%s\n%s\n' $pid "$(started $pid)" >"$pid_file"
  for _ in $(seq 300); do
    # Not by the log alone: log.level may keep the line out of it.
    if [ "$(answering "$@")" = "$pid" ]; then
      tail -c "+$((before + 1))" "$log_file" | grep 'PlantOps is ready' || echo "PlantOps is ready"
      exit 0
    fi
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
  done
  echo "PlantOps did not become ready; the end of $log_file:" >&2
  tail -c "+$((before + 1))" "$log_file" | tail -n 20 >&2
  if kill -0 $pid 2>/dev/null; then
    echo "It is still trying, with PID $pid: 'make logs' shows how, 'make down' ends it" >&2
    exit 1
  fi
  rm -f "$pid_file"
  exit 1
  ;;
down)
  shift
  if ! running; then
    rm -f "$pid_file"
    other=$(answering "$@")
    if [ -n "$other" ]; then
      echo "What 'make up' started is not running. PID $other is a PlantOps that was started otherwise: it is left alone"
    else
      echo "PlantOps is not running"
    fi
    exit 0
  fi
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
  exec tail -n 100 -F "$log_file"
  ;;
*)
  echo "usage: deploy/background.sh up [ARGUMENTS OF serve]|down [ARGUMENTS OF serve]|logs" >&2
  exit 2
  ;;
esac
