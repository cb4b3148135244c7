#!/usr/bin/env bash
# The tests in C: run.sh [PREFIX], a folder that ffi/stage.sh filled (target/ceiba unless given).
# With WRAP set, each program runs under it, such as WRAP="valgrind --leak-check=full --error-exitcode=9".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
prefix=${1:-$root/target/ceiba}
prefix=$(cd "$prefix" && pwd)
out=$root/target/c
rm -rf "$out"
mkdir -p "$out"
cc=${CC:-cc} cxx=${CXX:-c++}
strict=(-Wall -Wextra -Werror -pedantic -g -O1)
c11=(-std=c11 -D_POSIX_C_SOURCE=200809L "${strict[@]}")
read -ra wrap <<<"${WRAP:-}"

say() { printf '  %-28s %s\n' "$1" "$2"; }
passed=0
pass() {
  say "$1" "${2:-ok}"
  passed=$((passed + 1))
}

# The header alone, in each language, and in two places at once.
printf '#include <ceiba.h>\n#include <ceiba.h>\nint first(void);\nint first(void) { return CEIBA_OK; }\n' >"$out/alone.c"
cp "$out/alone.c" "$out/alone.cpp"
"$cc" -std=c11 "${strict[@]}" -I"$prefix/include" -c "$out/alone.c" -o "$out/alone.o"
pass "header as C11"
"$cxx" -std=c++17 "${strict[@]}" -I"$prefix/include" -c "$out/alone.cpp" -o "$out/alone-cpp.o"
pass "header as C++17"

# The library exports the functions of the header and nothing else.
nm -D --defined-only "$prefix/lib/libceiba.so" | awk '{print $3}' | LC_ALL=C sort >"$out/shared.txt"
LC_ALL=C sort "$root/ffi/symbols.txt" | diff -u - "$out/shared.txt"
pass "symbols of libceiba.so"
nm -g --defined-only "$prefix/lib/libceiba.a" | awk 'NF == 3 {print $3}' | LC_ALL=C sort >"$out/static.txt"
LC_ALL=C sort "$root/ffi/symbols.txt" | diff -u - "$out/static.txt"
pass "symbols of libceiba.a"
readelf -d "$prefix/lib/libceiba.so" | grep -q 'SONAME.*\[libceiba\.so\.0\]'
pass "soname"

# As an installed library is found: by pkg-config from a folder that was moved, and by CMake.
mkdir -p "$out/moved"
cp -a "$prefix" "$out/moved/there"
export PKG_CONFIG_PATH=$out/moved/there/lib/pkgconfig
read -ra flags <<<"$(pkg-config --cflags --libs ceiba)"
"$cc" "${c11[@]}" "$here/messages.c" "${flags[@]}" -Wl,-rpath,"$out/moved/there/lib" -pthread -o "$out/by-pkg-config"
"$out/by-pkg-config"
pass "pkg-config, moved"
mkdir -p "$out/cmake"
cat >"$out/cmake/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.13)
project(by_cmake C)
find_package(Ceiba 0.1 REQUIRED)
foreach(kind ceiba ceiba_static)
  add_executable(with_\${kind} "$here/messages.c")
  target_compile_definitions(with_\${kind} PRIVATE _POSIX_C_SOURCE=200809L)
  target_link_libraries(with_\${kind} PRIVATE Ceiba::\${kind} Threads::Threads)
endforeach()
CMAKE
cmake -S "$out/cmake" -B "$out/cmake/build" -DCMAKE_PREFIX_PATH="$out/moved/there" >"$out/cmake.log" 2>&1 &&
  cmake --build "$out/cmake/build" >>"$out/cmake.log" 2>&1 || { cat "$out/cmake.log" >&2; exit 1; }
"$out/cmake/build/with_ceiba"
pass "CMake, shared"
"$out/cmake/build/with_ceiba_static"
if readelf -d "$out/cmake/build/with_ceiba_static" | grep -q libceiba; then exit 1; fi
pass "CMake, static"
rm -rf "$out/moved" "$out/cmake"

# Beside another Rust archive, which brings its own copy of the Rust runtime, in either order.
cat >"$out/other.rs" <<'RUST'
#[unsafe(no_mangle)]
pub extern "C" fn other_caught() -> i32 {
    std::panic::set_hook(Box::new(|_| ()));
    std::thread::spawn(|| panic!("in the other archive")).join().is_err().into()
}
RUST
cat >"$out/beside.c" <<'C'
#include <ceiba.h>
int other_caught(void);
int main(void) {
    return !(other_caught() == 1 && ceiba_producer_send("a", 1, "b", 1, 0, NULL, NULL) == CEIBA_ERR_UNKNOWN_ID);
}
C
rustc --edition 2024 --crate-type staticlib -C opt-level=0 "$out/other.rs" -o "$out/libother.a"
for order in "$prefix/lib/libceiba.a $out/libother.a" "$out/libother.a $prefix/lib/libceiba.a"; do
  read -ra archives <<<"$order"
  "$cc" "${c11[@]}" -I"$prefix/include" "$out/beside.c" "${archives[@]}" -lm -pthread -ldl -o "$out/beside"
  "$out/beside"
done
rm -f "$out/libother.a"
pass "beside another Rust archive"

for source in "$here"/*.c; do
  name=$(basename "$source" .c)
  "$cc" "${c11[@]}" -I"$prefix/include" "$source" -L"$prefix/lib" -lceiba -Wl,-rpath,"$prefix/lib" -pthread -o "$out/$name"
  [ "$name" = bench_submit ] && continue
  start=$(date +%s.%N)
  "${wrap[@]}" "$out/$name"
  pass "$name" "ok, $(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f s", b - a }')"
done
# One of them as C++ too.
"$cxx" -x c++ -std=c++17 -D_GNU_SOURCE "${strict[@]}" -I"$prefix/include" "$here/outbox.c" -x none -L"$prefix/lib" -lceiba -Wl,-rpath,"$prefix/lib" -pthread -o "$out/outbox-cpp"
"$out/outbox-cpp"
pass "outbox as C++17"
"$out/bench_submit" 3 >/dev/null
pass "bench_submit runs"
echo "c: $passed passed, 0 failed"
