"""One measurement: a fresh broker, a program against it, and what both used."""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import signal
import subprocess
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# What a broker keeps of a message beside its body, and how much it keeps of all (its own bound is 1 GiB).
OVERHEAD = 100
STORED = 800 << 20
# More of the machine than this taken by other work: the measurement is made again.
FOREIGN = 0.12
TRIES = 3
# After so many seconds nothing is measured again, so that a busy machine does not double the time for ever.
PATIENCE = 300.0


@dataclass(frozen=True)
class Case:
    """What is measured."""

    program: str  # rust, c, go, python, plain, peer, sdk
    mode: str  # acked, unacked, e2e, submit, submit_many, send, limiter, redis_limiter, outbox, strategy, mns_…
    clients: int = 1
    size: int = 100


@dataclass
class Sample:
    """What was seen."""

    rate: float  # messages per second
    client_cpu: float  # seconds per 100,000 messages
    broker_cpu: float | None  # the same of the broker; None: not ours to look at
    foreign: float  # part of the machine that other work took
    line: dict


# What makes a broker speak MNS.
MNS = ["--mns", "127.0.0.1:0", "--mns-key", "id:secret"]
# Messages that are received and acknowledged.
TAKEN = 40_000


class Broker:
    """Our broker as a process of its own; or another server, which prints its address too."""

    def __init__(self, program: str, *arguments: str, server: str = "") -> None:
        self.secret = secrets.token_hex(8)
        command = [program, "--mode", server] if server else [program, "broker", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            env={**os.environ, "CEIBA_SECRET": self.secret},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]
        if "--mns" in arguments:
            self.address = self.process.stdout.readline().split()[-1]

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> dict[str, int]:
        """Bytes of its own memory, and of files that are mapped into it."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return {name: int(re.search(rf"{name}:\s*(\d+)", text)[1]) << 10 for name in ("RssAnon", "RssFile")}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def busy() -> float:
    """Seconds that all processors have worked for processes, and that were stolen from them."""
    user, nice, system, _, _, _, _, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + steal) / TICKS


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Peer:
    """The other server's process, where it is known. Such a server may work all the time for the messages that it
    holds, so it stands still while others are measured."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def say(self, name: int) -> None:
        if self.pid:
            os.kill(self.pid, name)

    @contextmanager
    def between(self, before: int, after: int):
        self.say(before)
        try:
            yield
        finally:
            self.say(after)

    def still(self):
        return self.between(signal.SIGSTOP, signal.SIGCONT)

    def awake(self):
        return self.between(signal.SIGCONT, signal.SIGSTOP)


class Bench:
    """The programs, and how they are run."""

    def __init__(self, options) -> None:
        self.options = options
        self.again = 0
        self.start = time.monotonic()

    def command(self, case: Case) -> list[str]:
        options = self.options
        start = {
            "rust": [options.rust],
            "c": [options.c],
            "go": [options.go],
            "python": [options.python, str(Path(__file__).with_name("python") / "bench.py")],
            "sdk": [options.mnsbench],
        }.get(case.program, [options.plain])
        mode = case.mode
        if mode == "submit_many":
            mode, start = "submit", [*start, "--many"]
        command = [*start, "--mode", mode, "--size", str(case.size), "--seconds", str(options.seconds)]
        if case.mode == "outbox":
            options.data.mkdir(parents=True, exist_ok=True)
            command += ["--data", str(options.data)]
        if case.mode in ("acked", "unacked", "e2e"):
            command += ["--clients", str(case.clients)]
            if case.program not in ("plain", "peer"):
                # A broker without consumers holds what it gets: the rate must not become that of a full one.
                command += ["--limit", str(STORED // (case.size + OVERHEAD))]
        if case.mode.startswith("mns_"):
            command += ["--clients", str(case.clients)]
            if case.mode in ("mns_send", "mns_batch", "mns_take"):
                limit = TAKEN if case.mode == "mns_take" else STORED // (case.size + 4 * OVERHEAD)
                command += ["--limit", str(limit)]
        return command

    def run(self, case: Case) -> Sample:
        """Measures, again while other work disturbs; the least disturbed counts."""
        best = self.once(case)
        for _ in range(TRIES - 1):
            if best.foreign <= FOREIGN or time.monotonic() - self.start > PATIENCE:
                break
            self.again += 1
            best = min(best, self.once(case), key=lambda sample: sample.foreign)
        return best

    def once(self, case: Case) -> Sample:
        options = self.options
        command = self.command(case)
        broker = None
        environment = dict(os.environ)
        if case.program == "peer":
            environment["CEIBA_SECRET"] = options.peer_secret
            command += ["--addr", options.peer, "--topic", f"bench-{secrets.token_hex(4)}"]
        elif case.mode in ("acked", "unacked", "e2e"):
            broker = Broker(options.broker)
            environment["CEIBA_SECRET"] = broker.secret
            command += ["--addr", broker.address]
        elif case.mode == "mns_floor":
            broker = Broker(options.rust, server="mns-floor-server")
            command += ["--addr", broker.address]
        elif case.mode.startswith("mns_"):
            broker = Broker(options.broker, *MNS)
            command += ["--addr", broker.address]
        try:
            broker_before = broker.cpu() if broker else 0.0
            own_before, busy_before, start = children(), busy(), time.monotonic()
            with options.peer_process.awake() if case.program == "peer" else nullcontext():
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
            took = time.monotonic() - start
            busy_for = busy() - busy_before
            own = children() - own_before
            broker_cpu = broker.cpu() - broker_before if broker else None
        finally:
            if broker:
                broker.stop()
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        line = json.loads(done.stdout)
        if line.get("duplicates"):
            raise SystemExit(f"{' '.join(command)}: {line['duplicates']} duplicates")
        per = 100_000 / line["messages"]
        foreign = max(0.0, busy_for - own - (broker_cpu or 0.0)) / took / (os.cpu_count() or 1)
        return Sample(
            rate=line.get("rate", 0.0),
            client_cpu=line.get("cpu_seconds", 0.0) * per,
            broker_cpu=None if broker_cpu is None else broker_cpu * per,
            # A server that we did not start counts as other work: it cannot be told apart.
            foreign=0.0 if case.program == "peer" else foreign,
            line=line,
        )
