#!/bin/bash
# Writes build/wasm.mod and build/wasm.sum: go.mod as it is, with each module
# that has a stub in wasm/stubs replaced by it. They are never edited by hand,
# and so cannot drift from go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
new=build/wasm.mod.$$.mod
trap 'rm -f "$new"' EXIT
cp go.mod "$new"
for stub in wasm/stubs/*/; do
	module=$(sed -n 's/^module //p' "$stub/go.mod")
	if ! grep -q "^	$module v" go.mod; then
		echo "wasmmod: wasm/stubs has $module, which go.mod does not require" >&2
		exit 1
	fi
	"${GO:-go}" mod edit -replace "$module=./${stub%/}" "$new"
done
cmp -s "$new" build/wasm.mod || mv "$new" build/wasm.mod
cmp -s go.sum build/wasm.sum || cp go.sum build/wasm.sum
