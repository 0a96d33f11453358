#!/usr/bin/env bash
# Checks dist/ as `make release VERSION=$1` made it: what is in each archive, what C library it needs. $2 has the same,
# packed again, with an install.sh that fetches from there.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 again=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
	echo "check_release: $*" >&2
	exit 1
}

(cd dist && sha256sum --quiet -c SHA256SUMS)
for archive in dist/veratune-"$version"-*; do
	name=$(basename "$archive")
	cmp "$archive" "$again/$name"
	case $name in
	*.zip) (cd "$work" && python3 -m zipfile -e "$OLDPWD/$archive" .) && folder=$work/${name%.zip} program=veratune.exe ;;
	*) tar -xzf "$archive" -C "$work" && folder=$work/${name%.tar.gz} program=veratune ;;
	esac
	for f in $program LICENSE sbom.spdx.json man/man1/veratune.1 completions/{veratune.bash,_veratune,veratune.fish} \
		licenses/go/LICENSE licenses/zig/LICENSE licenses/zig/lib/libcxx/LICENSE.TXT \
		licenses/github.com/ollama/ollama/{LICENSE,llama/llama.cpp/LICENSE,ml/backend/ggml/ggml/LICENSE}; do
		[ -s "$folder/$f" ] || fail "$name lacks $f"
	done
	go version -m "$folder/$program" | awk '$1 == "dep" {print $2}' | while read -r module; do
		grep -q "\"name\": \"$module\"" "$folder/sbom.spdx.json" || fail "$name: sbom.spdx.json lacks $module"
		[ -d "$folder/licenses/$module" ] || fail "$name: no licence of $module"
	done
	if grep -qaF -e "$PWD" -e "$(go env GOMODCACHE)" "$folder/$program"; then fail "$name has a path of this machine"; fi
	[ "$program" = veratune ] || continue
	highest=$(objdump -T "$folder/$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
	[ "$(printf '%s\nGLIBC_2.28\n' "$highest" | sort -V | tail -1)" = GLIBC_2.28 ] || fail "$name needs $highest"
	needed=$(objdump -p "$folder/$program" | awk '$1 == "NEEDED" {print $2}' |
		grep -vE '^(lib(c|m|dl|rt|pthread|resolv)\.so|ld-linux)' || true)
	[ -z "$needed" ] || fail "$name needs $needed"
	echo "$name: $(stat -c %s "$archive") bytes, needs $highest"
done
host=veratune-$version-linux-$(go env GOHOSTARCH)
[ -e "$work/$host" ] || exit 0
sh -n "$again/install.sh"
! command -v shellcheck >/dev/null || shellcheck "$again/install.sh"
mkdir "$work/installed"
PREFIX=$work/installed sh "$again/install.sh"
cmp "$work/installed/bin/veratune" "$work/$host/veratune"
echo more >>"$again/$host.tar.gz"
if PREFIX=$work/refused sh "$again/install.sh" 2>/dev/null || [ -e "$work/refused" ]; then
	fail "install.sh installs an archive with another checksum"
fi
