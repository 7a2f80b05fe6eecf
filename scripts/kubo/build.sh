#!/usr/bin/env bash
# Builds Kubo, the peer that our tests meet, once: prints where it is.
# It takes about 7 minutes on two cores, so it is kept outside the tree.
set -euo pipefail
version=v0.43.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weft-test
bin=$cache/ipfs-$version
mkdir -p "$cache"
# Two builds at once would only be slower: the second waits and finds the first's.
exec 9>"$cache/lock"
flock 9
if ! { [ -x "$bin" ] && "$bin" version --number 2>/dev/null | grep -qx "${version#v}"; }; then
	echo "building Kubo $version into $bin: this takes some minutes, once" >&2
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	# A module of its own: Kubo's dependencies are not ours.
	go mod init kubo.build >&2
	go get "github.com/ipfs/kubo/cmd/ipfs@$version" >&2
	go build -trimpath -o ipfs github.com/ipfs/kubo/cmd/ipfs
	mv ipfs "$bin"
fi
echo "$bin"
