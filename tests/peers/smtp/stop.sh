#!/usr/bin/env bash
# Stops the mail server of a folder: stop.sh FOLDER
set -euo pipefail
postfix -c "$(realpath "$1")" stop >/dev/null 2>&1
