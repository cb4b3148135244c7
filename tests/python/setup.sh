#!/bin/sh
# Makes the virtual environment target/venv with what requirements.txt pins, builds the wheel into
# target/wheels and installs it there; and target/venv-sms and target/venv-mns with what requirements-sms.txt and
# requirements-mns.txt pin. Environment:
#   PYTHON         the interpreter, 3.10 or later (python3)
#   VENV           the virtual environment (target/venv)
#   WHEEL_PROFILE  cargo profile of the wheel: dev (default) or release
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=${VENV:-$root/target/venv}
python=${PYTHON:-python3}
profile=${WHEEL_PROFILE:-dev}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "setup.sh: $python is older than Python 3.10; name another in PYTHON" >&2
    exit 1
}
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv" || {
        echo "setup.sh: no virtual environment could be made; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
fi
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi

# The SDKs that short messages are compared with have many parts of their own: they are kept apart. They need no
# wheel of ours, so one environment serves every interpreter.
sms=$root/target/venv-sms
if ! cmp -s "$here/requirements-sms.txt" "$sms/requirements-sms.txt"; then
    [ -x "$sms/bin/python" ] || "${SMS_PYTHON:-python3}" -m venv "$sms"
    "$sms/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-sms.txt"
    cp "$here/requirements-sms.txt" "$sms/requirements-sms.txt"
fi

# The same for the SDK that drives the MNS front of the broker.
mns=$root/target/venv-mns
if ! cmp -s "$here/requirements-mns.txt" "$mns/requirements-mns.txt"; then
    [ -x "$mns/bin/python" ] || "${MNS_PYTHON:-python3}" -m venv "$mns"
    "$mns/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements-mns.txt"
    cp "$here/requirements-mns.txt" "$mns/requirements-mns.txt"
fi

wheels=$root/target/wheels/$profile
rm -rf "$wheels"
(cd "$root/python" && CARGO_TARGET_DIR=$target "$venv/bin/python" -m maturin build --quiet --locked \
    --interpreter "$venv/bin/python" --profile "$profile" --out "$wheels")
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheels"/ceiba-*.whl
"$venv/bin/python" -c 'import ceiba; print("ceiba", ceiba.__version__, "in", ceiba.__path__[0])'
