#!/usr/bin/env bash
# Runs every fuzz target for a while, one at a time, and boot.js' mutants
# ("mutants"), of a seed that is printed.
# usage: scripts/fuzz.sh 60s [name pattern]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-60s} only=${2:-.}
go list -f '{{.Dir}}{{range .TestGoFiles}} {{.}}{{end}}{{range .XTestGoFiles}} {{.}}{{end}}' ./shared/... ./relay/... ./wasm/... ./scripts/... |
while read -r dir files; do
  for f in $files; do
    { grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir/$f" || true; } | awk '{print $2}' | { grep -E "$only" || true; } |
    while read -r target; do
      echo "== ${dir#"$PWD/"} $target"
      go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir" < /dev/null
    done
  done
done
if grep -qE "$only" <<< mutants; then
  seed=$RANDOM
  echo "== web/test mutants, SEED=$seed"
  go run ./scripts/corpus -mutants 50000 -seed "$seed" build/corpus.json
  MUTATE=${time%s} SEED=$seed node --test web/test/corpus.test.js
fi
