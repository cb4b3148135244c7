#!/usr/bin/env bash
# Builds the MongoDB server of the tests into target/ferretdb.
set -euo pipefail
cd "$(dirname "$0")"
exec go build -trimpath -tags ferretdb_no_postgresql -o ../../../target/ferretdb .
