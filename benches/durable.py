"""The durable broker: every figure beside what the disk, a bare server or another broker does in the same round."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measure import FOREIGN, Broker, busy, children

SIZE = 100
# Seconds of one look at the disk.
PROBE = 0.4
# The disk may differ by this factor between the looks before and after a run; else the run counts for nothing.
STEADY = 1.35
# A sync that takes longer in the median (microseconds) is that of a disk that was written to too much.
SLOW = 1000.0
# How long such a disk is waited for, and how often a run is made.
PATIENCE = 60.0
TRIES = 4
WAITING = 10_000_000
RESTART = 1_000_000
STORED = str(8 << 30)


@dataclass(frozen=True)
class Row:
    """What is measured against whom."""

    name: str
    arguments: tuple[str, ...]
    who: str = "broker"  # broker, memory, client, peer
    limit: int = 0  # messages of a batch whose limit stands beside it
    beside: str = ""  # floor, floor-window, echo


@dataclass
class Seen:
    """One run."""

    line: dict
    broker_cpu: float | None
    foreign: float
    limit: float = 0.0
    beside: list[dict] = field(default_factory=list)
    moved: bool = False

    @property
    def rate(self) -> float:
        return self.line["rate"]


def window(who: str, size: int, clients: int, limit: int = 0, beside: str = "") -> Row:
    arguments = ("--mode", "window", "--window", str(size), "--clients", str(clients))
    return Row(f"window {size} x {clients}", arguments, who, limit, beside)


FLOW = ("--mode", "flow", "--window", "1024")
HTTP = ("--mode", "http", "--clients", "8")


def rows(peer: bool) -> list[Row]:
    """In the order in which they are run: what is compared stands together."""
    plan = [
        window("broker", 64, 1, 64, "floor-window"),
        *([window("peer", 64, 1)] if peer else []),
        Row("ceiba's client x 1", ("--mode", "acked", "--clients", "1"), "client", 64),
        window("broker", 1024, 8, 8192),
        *([window("peer", 1024, 8)] if peer else []),
        Row("ceiba's client x 8", ("--mode", "acked", "--clients", "8"), "client", 8192),
        Row("flow", FLOW, "broker", 1024),
        *([Row("flow", FLOW, "peer")] if peer else []),
        Row("ceiba's client, flow", ("--mode", "e2e", "--clients", "1"), "client", 1024),
        Row("serial", ("--mode", "serial"), "broker", 1, "floor"),
        Row("delivery", ("--mode", "delivery"), "memory", 0, "echo"),
        *([Row("delivery", ("--mode", "delivery"), "peer")] if peer else []),
        Row("http", HTTP, "memory"),
        Row("http", HTTP, "broker", 8),
        *([Row("http", (*HTTP, "--path", "/Producer/Send"), "peer")] if peer else []),
    ]
    return plan


class Durable:
    """The programs, the folder, and how they are run."""

    def __init__(self, options) -> None:
        self.options = options
        self.again = 0
        self.waited = 0.0
        self.folder = Path(options.data)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def tool(self, *arguments: str, secret: str = "test", address: str = "") -> dict:
        command = [self.options.rust, *arguments, "--size", str(SIZE), "--data", str(self.folder)]
        if address:
            command += ["--addr", address, "--topic", f"bench-{secrets.token_hex(4)}"]
        environment = {**os.environ, "CEIBA_SECRET": secret}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def limit(self, batch: int) -> dict:
        return self.tool("--mode", "limit", "--window", str(batch), "--seconds", str(PROBE))

    def settle(self) -> None:
        """Waits until the disk is what it is when nobody wrote much."""
        start = time.monotonic()
        while self.tool("--mode", "limit", "--window", "1", "--seconds", "0.1")["p50_us"] > SLOW:
            if time.monotonic() - start > PATIENCE:
                break
            time.sleep(1)
        self.waited += time.monotonic() - start

    @contextmanager
    def broker(self, who: str, folder: Path | None = None):
        """A broker of its own, with a fresh folder unless one is named."""
        data = folder or self.folder / secrets.token_hex(4)
        arguments = ["--dpmq", "--stored-bytes", STORED]
        if who != "memory":
            arguments += ["--data", str(data)]
        broker = Broker(self.options.broker, *arguments)
        try:
            yield broker
        finally:
            broker.stop()
            if folder is None:
                shutil.rmtree(data, ignore_errors=True)

    @contextmanager
    def bare(self, mode: str):
        server = f"{mode.removesuffix('-window')}-server"
        command = [self.options.rust, "--mode", server, "--size", str(SIZE), "--data", str(self.folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait()

    def side(self, mode: str) -> dict:
        with self.bare(mode) as address:
            return self.tool("--mode", mode, "--seconds", str(self.options.seconds), address=address)

    def run(self, row: Row) -> Seen:
        """Measures, again where the disk was another one after than before or others worked; the best counts."""
        best = self.once(row)
        for _ in range(TRIES - 1):
            if not best.moved and best.foreign <= FOREIGN:
                break
            self.again += 1
            best = min(best, self.once(row), key=lambda seen: (seen.moved, seen.foreign))
        return best

    def once(self, row: Row) -> Seen:
        if row.who not in ("memory", "peer"):
            self.settle()
        before = self.limit(row.limit) if row.limit else None
        beside = [self.side(row.beside)] if row.beside else []
        seen = self.against(row)
        if row.beside:
            beside.append(self.side(row.beside))
        seen.beside = beside
        if before is not None:
            after = self.limit(row.limit)
            seen.limit = statistics.mean((before["rate"], after["rate"]))
            low, high = sorted((before["rate"], after["rate"]))
            seen.moved = high > low * STEADY
        return seen

    def against(self, row: Row) -> Seen:
        seconds = ("--seconds", str(self.options.seconds))
        if row.who == "peer":
            with self.options.peer_process.awake():
                line = self.tool(*row.arguments, *seconds, secret=self.options.peer_secret, address=self.options.peer)
            # A server that we did not start counts as other work: it cannot be told apart.
            return Seen(line, None, 0.0)
        with self.broker(row.who) as broker:
            # What a broker that has just started has still to prepare is not the matter.
            time.sleep(0.5)
            cpu, own, work, start = broker.cpu(), children(), busy(), time.monotonic()
            line = self.tool(*row.arguments, *seconds, secret=broker.secret, address=broker.address)
            if line.get("lost"):
                raise SystemExit(f"{row.name}: {line['lost']} messages never came")
            took, work = time.monotonic() - start, busy() - work
            used = broker.cpu() - cpu
            foreign = max(0.0, work - (children() - own) - used) / took / (os.cpu_count() or 1)
        return Seen(line, used * 100_000 / max(1, line["messages"]), foreign)

    def memory(self) -> dict:
        """What a broker takes for messages that wait, each of them on disk, and for starting with fewer of them."""
        with self.broker("broker") as broker:
            time.sleep(1)
            before = broker.memory()
            fill = ("--mode", "window", "--window", "1024", "--clients", "8", "--seconds", "600")
            self.tool(*fill, "--limit", str(WAITING), secret=broker.secret, address=broker.address)
            time.sleep(2)
            return {"messages": WAITING, "before": before, "after": broker.memory()}

    def restart(self) -> list[float]:
        """Seconds from the start of the process until a client is logged in."""
        folder = self.folder / "restart"
        shutil.rmtree(folder, ignore_errors=True)
        with self.broker("broker", folder) as broker:
            fill = ("--mode", "window", "--window", "1024", "--clients", "8", "--seconds", "600")
            self.tool(*fill, "--limit", str(RESTART), secret=broker.secret, address=broker.address)
            # As a crash leaves it: nothing is written down for the next start.
            broker.process.kill()
            broker.process.wait()
        times = []
        for _ in range(5):
            self.settle()
            start = time.monotonic()
            with self.broker("broker", folder) as broker:
                log_in(broker)
                times.append(time.monotonic() - start)
                waiting = unconsumed(broker)
                if waiting != RESTART:
                    raise SystemExit(f"{waiting} messages were there after a restart, not {RESTART}")
                broker.process.kill()
                broker.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        return times


def log_in(broker: Broker) -> None:
    host, port = broker.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 30) as connection:
        head = (
            f"GET /Producers/Conn/restart/p HTTP/1.1\r\nHost: {broker.address}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        connection.sendall(head.encode())
        key = broker.secret.encode()
        until(connection, b"secret key")
        # A mask of zeros leaves the key as it is.
        connection.sendall(bytes([0x81, 0x80 | len(key), 0, 0, 0, 0]) + key)
        until(connection, b"succeeded")


def until(connection: socket.socket, text: bytes) -> None:
    seen = b""
    while text not in seen:
        more = connection.recv(4096)
        if not more:
            raise SystemExit("the broker closed a connection")
        seen += more


def unconsumed(broker: Broker) -> int:
    host, port = broker.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 30) as connection:
        head = f"POST /Console/CountMessage HTTP/1.1\r\nHost: {broker.address}\r\nsecretKey: {broker.secret}\r\n"
        connection.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while more := connection.recv(4096):
            answer += more
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["data"]["unconsumed"]


def measure(options) -> tuple[dict[Row, list[Seen]], dict, list[float], Durable]:
    """All rounds, then what is done once."""
    durable = Durable(options)
    plan = rows(bool(options.peer))
    samples: dict[Row, list[Seen]] = {row: [] for row in plan}
    for number in range(options.rounds):
        for row in plan:
            seen = durable.run(row)
            samples[row].append(seen)
            shown = f"{seen.rate:,.0f}/s" if "p50_us" not in seen.line else f"p99 {seen.line['p99_us']:.0f} us"
            limit = f", {seen.rate / seen.limit:.0%} of the limit" if seen.limit else ""
            moved = ", the disk moved" if seen.moved else ""
            print(
                f"broker, round {number + 1} of {options.rounds}: {row.who} {row.name}: {shown}{limit}{moved},"
                f" other work {seen.foreign:.0%}",
                file=sys.stderr,
            )
    restart = durable.restart()
    print(f"broker: restarts {restart}", file=sys.stderr)
    memory = durable.memory()
    print(f"broker: memory {memory}", file=sys.stderr)
    shutil.rmtree(durable.folder, ignore_errors=True)
    return samples, memory, restart, durable
