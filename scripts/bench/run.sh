#!/usr/bin/env bash
# Measures Weft beside verified-fetch and Helia; see bench.mjs. Called by `make bench`.
# usage: scripts/bench/run.sh [subject…]   env: RUNS (default 3), CHROMIUM, IPFS_BIN
set -euo pipefail
cd "$(dirname "$0")"

# The peers' packages and import.meta.dirname want Node 20; Debian 12 has 18.
NODE_VERSION=22.23.3
if [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
  case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) echo "bench: install Node 20 or newer" >&2; exit 1 ;;
  esac
  dir=../../build/node
  [ -x "$dir/node_modules/node-linux-$arch/bin/node" ] ||
    npm install --prefix "$dir" --no-save --ignore-scripts --no-audit --no-fund --loglevel=error "node-linux-$arch@$NODE_VERSION"
  PATH=$(cd "$dir/node_modules/node-linux-$arch/bin" && pwd):$PATH
fi

if ! cmp -s package-lock.json node_modules/.bench-lock.json; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.bench-lock.json
fi
[ -n "${IPFS_BIN:-}" ] || ../kubo/build.sh >/dev/null
exec node bench.mjs "$@"
