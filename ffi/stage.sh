#!/usr/bin/env bash
# Installs the built C library into a folder: stage.sh PREFIX [PROFILE] [FINAL_PREFIX]
#   PREFIX        where the files go: include/, lib/, lib/pkgconfig/, lib/cmake/Ceiba/
#   PROFILE       dev or release (the default): which build is taken from the target folder
#   FINAL_PREFIX  where they will be used, when that is another place; only told, since all files are relocatable
# The library must be built: cargo build -p ceiba-ffi [--release].
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
prefix=${1:?usage: stage.sh PREFIX [PROFILE] [FINAL_PREFIX]}
profile=${2:-release}
final=${3:-$prefix}
case $profile in
  dev | debug) built=debug ;;
  *) built=$profile ;;
esac
built=${CARGO_TARGET_DIR:-$root/target}/$built
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
[ -n "$version" ] || { echo "stage.sh: no version in Cargo.toml" >&2; exit 1; }

install -d "$prefix/lib/pkgconfig" "$prefix/lib/cmake/Ceiba" "$prefix/include"
install -m 644 "$root/include/ceiba.h" "$prefix/include/ceiba.h"

# A running program may have the library mapped: a new file takes the name, the old one is left to it.
replace() {
  install -m "$1" "$2" "$3.new"
  mv -f "$3.new" "$3"
}
case $(uname -s) in
  Darwin)
    replace 755 "$built/libceiba.dylib" "$prefix/lib/libceiba.0.dylib"
    ln -sfn libceiba.0.dylib "$prefix/lib/libceiba.dylib"
    replace 644 "$built/libceiba.a" "$prefix/lib/libceiba.a"
    ;;
  *)
    replace 755 "$built/libceiba.so" "$prefix/lib/libceiba.so.$version"
    ln -sfn "libceiba.so.$version" "$prefix/lib/libceiba.so.0"
    ln -sfn libceiba.so.0 "$prefix/lib/libceiba.so"
    # The static library takes seconds to make: not again from the same input, which gives it its time.
    made=$(stat -c %y "$prefix/lib/libceiba.a" 2>/dev/null || true)
    if [ "$made" != "$(stat -c %y "$built/libceiba.a")" ] || [ "$here/staticlib.sh" -nt "$prefix/lib/libceiba.a" ]; then
      "$here/staticlib.sh" "$built/libceiba.a" "$prefix/lib/libceiba.a"
      touch -r "$built/libceiba.a" "$prefix/lib/libceiba.a"
    fi
    ;;
esac

for pair in ceiba.pc:lib/pkgconfig/ceiba.pc \
  ceiba-config.cmake:lib/cmake/Ceiba/CeibaConfig.cmake \
  ceiba-config-version.cmake:lib/cmake/Ceiba/CeibaConfigVersion.cmake; do
  sed "s/@VERSION@/$version/g" "$here/${pair%%:*}.in" >"$prefix/${pair#*:}"
done
echo "ceiba $version ($profile) is in $final"
