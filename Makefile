# The only list of commands; CI calls it too.

PROFILE ?= dev
PROFILE_DIR = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
VENV = target/venv
FILE ?=
LOOPS ?=
PROVIDER ?= kapokmq

.PHONY: help tools build lib wheel run test test-long fuzz check fmt header bench install clean

help:            ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  \1 - /p' Makefile

tools:           ## check what the build needs, and install what may be installed
	@tests/tools.sh

build: tools     ## build everything in the dev profile
	cargo build --locked --workspace --exclude ceiba-python

lib: tools       ## release C library, header, pkg-config and CMake files, in target/ceiba
	cargo build --locked --release -p ceiba-ffi -p ceiba-cli
	ffi/stage.sh target/ceiba release

wheel: tools     ## release Python wheel, installed into target/venv
	WHEEL_PROFILE=release tests/python/setup.sh

run: lib wheel   ## the main job: send a data file through the broker from C, Go and Python (FILE=…, PROVIDER=dpmq for another)
	examples/run.sh "$(FILE)" --provider "$(PROVIDER)"

test: tools      ## everything: checks, Rust, C, Go, Python, the program, the README
	tests/run.sh

test-long: tools ## the long loops, or LOOPS="crash power"; their ends go to tests/long.txt
	tests/long.sh $(LOOPS)

SECONDS_EACH ?= 20
fuzz: tools      ## fuzz every parser and the log's reader (SECONDS_EACH=20; needs the nightly toolchain), and keep the corpus
	SECONDS_EACH=$(SECONDS_EACH) fuzz/run.sh

check: tools     ## format, lints, licences
	tests/check.sh

fmt:             ## format Rust and Go
	cargo fmt --all
	gofmt -w ffi/go examples/go tests/go benches/go

header:          ## write include/ceiba.h and ffi/symbols.txt anew from the sources
	UPDATE_HEADER=1 cargo test --locked -q -p ceiba-ffi --test header

bench: lib wheel ## the benchmark report, into benches/REPORT.md
	benches/run.sh

PREFIX ?= /usr/local
DESTDIR ?=
install: lib     ## install the C library, its header and the program (PREFIX, DESTDIR)
	ffi/stage.sh "$(DESTDIR)$(PREFIX)" release "$(PREFIX)"
	install -D -m 755 target/release/ceiba "$(DESTDIR)$(PREFIX)/bin/ceiba"

clean:           ## remove what was built
	rm -rf target
