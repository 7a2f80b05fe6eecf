#!/usr/bin/env bash
# Installs what a target needs beyond Go, git and make, if it is not there.
# usage: scripts/setup.sh chromium|node|gcc|ip|pages…   (as root on Debian)
set -euo pipefail
cd "$(dirname "$0")/.."

updated=
install() { # packages…
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: please install: $*" >&2
    exit 1
  fi
  echo "setup: installing $*" >&2
  export DEBIAN_FRONTEND=noninteractive
  if [ -z "$updated" ]; then apt-get update -qq >&2; updated=1; fi
  apt-get install -y -qq --no-install-recommends "$@" >&2
}

for what in "$@"; do
  case $what in
    chromium) command -v chromium >/dev/null || install chromium ;;
    node) command -v node >/dev/null && command -v npm >/dev/null || install nodejs npm ;;
    gcc) command -v gcc >/dev/null && [ -e /usr/include/stdlib.h ] || install gcc libc6-dev ;;
    ip)
      command -v ip >/dev/null || install iproute2
      [ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; } # containers come without
      ;;
    # What the end-to-end tests publish and import, and Helia: real packages from npm.
    pages)
      if ! cmp -s web/e2e/pages/package-lock.json web/e2e/pages/node_modules/.e2e-lock.json; then
        (cd web/e2e/pages && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error &&
          cp package-lock.json node_modules/.e2e-lock.json)
      fi ;;
    *) echo "setup: unknown: $what" >&2; exit 2 ;;
  esac
done
