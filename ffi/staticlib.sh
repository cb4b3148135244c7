#!/usr/bin/env bash
# Makes the static library that is installed: staticlib.sh INPUT.a OUTPUT.a
# Cargo's archive also carries every name of the libraries inside (ring's, the Rust runtime's), and two such
# archives do not link into one program. Here all of it becomes one object that shows the names of
# symbols.txt and hides the rest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
input=${1:?usage: staticlib.sh INPUT.a OUTPUT.a}
output=${2:?usage: staticlib.sh INPUT.a OUTPUT.a}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

roots=()
while read -r name; do roots+=(-u "$name"); done <"$here/symbols.txt"
# Groups are dissolved: one of the same name in another archive would be dropped in favour of ours, which is
# hidden from it.
ld -r --gc-sections --force-group-allocation "${roots[@]}" -o "$work/all.o" --whole-archive "$input" --no-whole-archive
objcopy --remove-section=.llvmbc --remove-section=.llvmcmd \
  --keep-global-symbols="$here/symbols.txt" "$work/all.o" "$work/ceiba.o"
objcopy --strip-unneeded "$work/ceiba.o"
rm -f "$work/out.a"
ar --plugin="" rcsD "$work/out.a" "$work/ceiba.o"
install -m 644 "$work/out.a" "$output.new"
mv -f "$output.new" "$output"
