"""The main job: start the broker, let the C, the Go and the Python program each send every line of a file and
receive them again, and print a table of what was counted.

A line ends with LF; a last line without one counts, and an empty line is an empty message. Both wires carry
text: a line that is not UTF-8 is refused by name and makes the job fail. Exit code 0: in each language every
line was acknowledged to its sender and arrived, and the broker holds nothing any more. DPMQ has no
acknowledgements by consumers: there a line is taken for consumed when it arrived.

It uses what `make lib wheel` built; CEIBA_BIN, CEIBA_LIB and CEIBA_PYTHON name other places.
"""

import argparse
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROGRAM = Path(os.environ.get("CEIBA_BIN", ROOT / "target/release/ceiba")).absolute()
LIBRARY = Path(os.environ.get("CEIBA_LIB", ROOT / "target/ceiba/lib")).absolute()
PYTHON = Path(os.environ.get("CEIBA_PYTHON", ROOT / "target/venv/bin/python")).absolute()
BUILT = ROOT / "target/examples"
DATA = HERE / "data/UnicodeData.txt"
LANGUAGES = ("c", "go", "python")
PROVIDERS = ("kapokmq", "dpmq")
COLUMNS = ("sent", "acknowledged", "received", "lost", "duplicates", "messages_per_second")

BUILD_SECONDS = 300
START_SECONDS = 20
JOB_SECONDS = 900


class Failed(Exception):
    """What is missing or went wrong, as a text for people."""


def check_tools(languages):
    wanted = [(PROGRAM, "`make lib`")]
    if "c" in languages or "go" in languages:
        wanted.append((LIBRARY / "libceiba.so", "`make lib`"))
    if "python" in languages:
        wanted.append((PYTHON, "`make wheel`"))
    for path, how in wanted:
        if not path.exists():
            raise Failed(f"{path} is missing: build it with {how}")
    for language, tool in (("c", "cc"), ("go", "go")):
        if language in languages and shutil.which(tool) is None:
            raise Failed(f"`{tool}` is not installed: it builds the {language} program")


def build_c(name):
    target = BUILT / f"{name}-c"
    build(["cc", "-O2", "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-pthread",
           f"-I{ROOT / 'include'}", HERE / "c" / f"{name}.c", f"-L{LIBRARY}", "-lceiba", f"-Wl,-rpath,{LIBRARY}",
           "-o", target])
    return [target]


def build_go(name):
    target = BUILT / f"{name}-go"
    build(["go", "build", "-o", target, f"./{name}"], cwd=HERE / "go")
    return [target]


def command(language, name):
    """Builds a program where that is needed, and returns how it is started."""
    BUILT.mkdir(parents=True, exist_ok=True)
    if language == "c":
        return build_c(name)
    if language == "go":
        return build_go(name)
    return [PYTHON, HERE / "python" / f"{name}.py"]


def build(arguments, **options):
    result = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=BUILD_SECONDS, **options)
    if result.returncode != 0:
        raise Failed(f"{arguments[0]} failed:\n{result.stdout}{result.stderr}".rstrip())


@contextmanager
def broker(*options):
    """A broker on a free port, with further options; gives its address and the environment that holds its secret."""
    environment = {**os.environ, "CEIBA_SECRET": secrets.token_hex(16)}
    process = subprocess.Popen([PROGRAM, "broker", "--listen", "127.0.0.1:0", *options], env=environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline().decode() if ready else ""
        if not line.startswith("listening on "):
            raise Failed(f"the broker did not start within {START_SECONDS} s: it said {line!r}")
        yield line.split()[-1], environment
    finally:
        # This very process and no other.
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        process.stdout.close()


def config(address, topic, provider="kapokmq"):
    """The config of the programs; the secret stays in the environment, and DPMQ has none."""
    if provider == "dpmq":
        return json.dumps({"provider": {"type": "dpmq", "url": f"http://{address}", "topic": topic}})
    return json.dumps({"provider": {"type": "kapokmq", "url": f"ws://{address}", "topic": topic,
                                    "secret_key": {"env": "CEIBA_SECRET"}}})


def run_program(arguments, config, environment):
    """Runs a program to its end: exit code and stdout. Its stderr is shown as it comes."""
    environment = {**environment, "CEIBA_CONFIG": config}
    process = subprocess.Popen(list(map(str, arguments)), env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    try:
        out, _ = process.communicate(timeout=JOB_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failed(f"{arguments[0]} did not end within {JOB_SECONDS} s") from None
    return process.returncode, out.decode()


def left_over(config, environment):
    """How many messages the broker still holds for the topic of a config: acknowledged ones must be gone."""
    result = subprocess.run([PROGRAM, "receive", config, "--timeout", "0.3", "--json"],
                            env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=JOB_SECONDS)
    if result.returncode != 0:
        raise Failed(f"what the broker still holds cannot be seen: {result.stderr.decode().strip()}")
    return result.stdout.count(b"\n")


def job(language, path, address, environment, provider="kapokmq"):
    """The counts of one language, with `good` and `left`."""
    text = config(address, f"job-{language}-{time.time_ns()}", provider)
    code, out = run_program([*command(language, "job"), path], text, environment)
    try:
        counts = json.loads(out)
    except json.JSONDecodeError:
        raise Failed(f"the {language} program ended with {code} and said {out[:200]!r}") from None
    counts["left"] = left_over(text, environment)
    counts["good"] = (code == 0 and counts["left"] == 0 and counts["lost"] == 0
                      and counts["acknowledged"] == counts["sent"] == counts["lines"] <= counts["received"])
    return counts


def table(rows):
    titles = ["language", *(column.replace("_", " ") for column in COLUMNS)]
    lines = [titles] + [[row["language"], *(f"{row[column]:,}" for column in COLUMNS)] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        for line in lines)


def readable(path):
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise Failed(f"the file cannot be read: {error}") from None
    return Path(path).absolute()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", nargs="?", default="", help="any file (default: the data file beside this program)")
    parser.add_argument("--only", choices=LANGUAGES, action="append", help="one language; may be given again")
    parser.add_argument("--provider", choices=PROVIDERS, default=PROVIDERS[0], help="the wire (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each language instead of the table")
    arguments = parser.parse_args()
    languages = tuple(arguments.only or LANGUAGES)
    try:
        path = readable(arguments.file or DATA)
        check_tools(languages)
        rows = []
        with broker(*(["--dpmq"] if arguments.provider == "dpmq" else [])) as (address, environment):
            if not arguments.json:
                print(f"{path}: {path.stat().st_size:,} bytes, over {arguments.provider} and the broker at {address}", flush=True)
            for language in languages:
                rows.append(job(language, path, address, environment, arguments.provider))
                if arguments.json:
                    print(json.dumps(rows[-1]), flush=True)
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 2
    if not arguments.json:
        print(table(rows))
    for row in rows:
        if row["sent"] < row["lines"]:
            print(f"{row['language']}: {row['lines'] - row['sent']:,} lines were not sent any more", file=sys.stderr)
        for name, text in (("refused", "lines were refused"), ("unknown", "sends have an unknown outcome"),
                           ("unexpected", "messages came that nobody sent"), ("left", "messages are left in the broker")):
            if row[name]:
                print(f"{row['language']}: {row[name]:,} {text}", file=sys.stderr)
    if not all(row["good"] for row in rows):
        print("FAILED: not every line was acknowledged and received", file=sys.stderr)
        return 1
    if not arguments.json:
        print("every line was acknowledged and received" if rows[0]["sent"] else "the file has no lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
