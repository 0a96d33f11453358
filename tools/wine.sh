#!/usr/bin/env bash
# Runs a program for Windows under wine, without a screen and in a folder of its own: tools/wine.sh PROGRAM [ARGUMENTS]
set -euo pipefail
root=$(dirname "$(dirname "$(realpath "$0")")")
wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
export WINEPREFIX=$root/build/wine WINEDEBUG=-all DISPLAY="" WINEDLLOVERRIDES="mscoree,mshtml,winemenubuilder.exe="

if [[ ! -e $WINEPREFIX/ready ]]; then
	mkdir -p "$WINEPREFIX"
	"$wine" wineboot --init
	system=$WINEPREFIX/drive_c/windows/system32
	[[ -e $system/bcryptprimitives.dll ]] || # newer ones have it
		x86_64-w64-mingw32-gcc-posix -O2 -shared -o "$system/bcryptprimitives.dll" "$root/tools/wine.c"
	touch "$WINEPREFIX/ready"
fi
exec "$wine" "$@"
