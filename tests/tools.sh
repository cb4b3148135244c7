#!/usr/bin/env bash
# Checks what the build and the tests need. Installs Debian packages when it may (root and apt-get, and
# CEIBA_NO_INSTALL is not set); otherwise says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=() packages=()
need() { # command, Debian package, what for
  command -v "$1" >/dev/null 2>&1 && return
  missing+=("$1: $3 (Debian package $2)")
  packages+=("$2")
}
need cc gcc "C compiler, for the C library's programs and for Go"
need c++ g++ "C++ compiler, to check the header"
need make make "this Makefile"
need python3 python3 "Python 3.10 or later"
need ld binutils "linker"
need curl curl "requests in tests"
need pkg-config pkg-config "how C programs find the library"
need cmake cmake "the CMake package is tested"
need redis-server redis-server "rate limits over a real Redis are tested"
if [ "$(id -u)" = 0 ] && [ ! -e /usr/sbin/sendmail ] && [ ! -e /usr/sbin/postfix ] && command -v debconf-set-selections >/dev/null; then
  # Only its programs are needed: no mail system of this machine is set up, and none that is here is replaced.
  echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
  need postfix postfix "a real mail server in tests"
  need saslpasswd2 sasl2-bin "logins of the mail server in tests"
  packages+=(libsasl2-modules)
fi

if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
  missing+=("python3 -m venv: the wheel's environment (Debian package python3-venv)")
  packages+=(python3-venv)
fi
if ((${#packages[@]})); then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${CEIBA_NO_INSTALL:-}" ]; then
    echo "tools: installing ${packages[*]}"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
  else
    printf 'tools: missing: %s\n' "${missing[@]}" >&2
    exit 1
  fi
fi

fail=0
if ! command -v cargo >/dev/null; then
  echo "tools: missing: cargo, from rustup; rust-toolchain.toml names the version" >&2
  fail=1
fi
if ! command -v go >/dev/null; then
  echo "tools: missing: go 1.25 or later, for the Go package and its tests" >&2
  fail=1
elif ! go version | awk '{ split(substr($3, 3), v, "."); exit !(v[1] > 1 || v[2] + 0 >= 25) }'; then
  echo "tools: $(go version | cut -d" " -f3) is older than go 1.25" >&2
  fail=1
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "tools: python3 is older than 3.11, which the test scripts need (the wheel runs on 3.10)" >&2
  fail=1
fi
exit $fail
