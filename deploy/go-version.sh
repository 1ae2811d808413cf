#!/usr/bin/env bash
# Says in words that Go is missing or too old; what an old Go itself says about go.mod helps nobody. GO names another one.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
wanted=$(sed -n 's/^go \([0-9.]*\)$/\1/p' go.mod)
remedy="Install Go ${wanted%.0} or later from the Go project's download page; what distributions ship is often older.
For a Pi, build on a PC instead: make pi"
if ! command -v "$go" >/dev/null 2>&1; then
  printf 'Go is not installed. %s\n' "$remedy" >&2
  exit 1
fi
# A Go from 1.21 on fetches the version that go.mod asks for by itself, unless it is told not to or has no network.
if ! has=$("$go" env GOVERSION 2>/dev/null) || [ -z "$has" ]; then
  has=$(GOTOOLCHAIN=local "$go" version 2>/dev/null | sed -n 's/.* \(go[0-9][^ ]*\) .*/\1/p')
fi
number=$(printf '%s' "$has" | sed 's/^go//; s/[^0-9.].*//')
case $has in devel*) exit 0 ;; esac
if [ "$(printf '%s\n%s\n' "$wanted" "${number:-0}" | sort -V | head -n 1)" != "$wanted" ]; then
  printf 'Go %s is too old, PlantOps needs %s. %s\n' "${number:-of this machine}" "${wanted%.0}" "$remedy" >&2
  exit 1
fi
