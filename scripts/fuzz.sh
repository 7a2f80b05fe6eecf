#!/usr/bin/env bash
# Runs every fuzz target for a while, one at a time.
# usage: scripts/fuzz.sh 60s [name pattern]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-60s} only=${2:-.}
go list -f '{{.Dir}}{{range .TestGoFiles}} {{.}}{{end}}{{range .XTestGoFiles}} {{.}}{{end}}' ./shared/... ./relay/... ./wasm/... |
while read -r dir files; do
  for f in $files; do
    { grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir/$f" || true; } | awk '{print $2}' | { grep -E "$only" || true; } |
    while read -r target; do
      echo "== ${dir#"$PWD/"} $target"
      go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir" < /dev/null
    done
  done
done
