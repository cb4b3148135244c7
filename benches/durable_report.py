"""The part of the page about the durable broker."""

from __future__ import annotations

import statistics
from pathlib import Path

from durable import SIZE, Row, Seen, window
from page import noise, table

NAMES = {
    "broker": "broker, fsync",
    "memory": "broker, memory",
    "client": "broker, fsync, by ceiba's client",
    "peer": "other server, without fsync",
}


class DurablePart:
    """The tables."""

    def __init__(self, samples: dict[Row, list[Seen]], memory: dict, restart: list[float], again: int, waited: float):
        self.samples = samples
        self.memory = memory
        self.restart = restart
        self.again = again
        self.waited = waited

    def find(self, name: str, who: str = "broker") -> list[Seen]:
        return next(found for row, found in self.samples.items() if (row.name, row.who) == (name, who))

    def rate(self, name: str, who: str = "broker") -> float:
        return statistics.median(seen.rate for seen in self.find(name, who))

    def part_of_limit(self, name: str) -> float:
        found = self.find(name)
        # A disk that changed under a run makes no ratio, where there are others.
        found = [seen for seen in found if not seen.moved] or found
        return statistics.median(seen.rate / seen.limit for seen in found if seen.limit)

    def times(self, name: str, who: str, field: str) -> tuple[float, float, float]:
        """Microseconds of ours, of what stands beside it, and the median of the rounds' ratios."""
        ours, beside = [], []
        for seen in self.find(name, who):
            ours.append(seen.line[field])
            beside.append(statistics.mean(line[field] for line in seen.beside))
        ratio = statistics.median(one / other for one, other in zip(ours, beside))
        return statistics.median(ours), statistics.median(beside), ratio

    def goals(self) -> list[str]:
        rows = []

        def row(what: str, aim: str, seen: str, met: bool) -> None:
            rows.append([what, aim, seen, "yes" if met else "NO"])

        moved = all(seen.moved for seen in self.find("window 64 x 1"))
        part, rate = self.part_of_limit("window 64 x 1"), self.rate("window 64 x 1")
        row("durable acked sends, window 64, 1 connection, to L(64)", ">= 70 %", f"{part:.0%}", part >= 0.7)
        if moved:
            rows[-1][-1] = "no telling: the disk moved"
        row("the same, messages/s", ">= 300,000", f"{rate:,.0f}", rate >= 300_000)
        seen = self.to_bare("window 64 x 1")
        row("the same, to a bare server with that window", "-", f"{seen:.0%}", True)
        rows[-1][-1] = "-"
        rate = self.rate("window 1024 x 8")
        row("the same, window 1024, 8 connections, messages/s", ">= 2,500,000", f"{rate:,.0f}", rate >= 2.5e6)
        rate = self.rate("flow")
        row("produce, consume and ack, durable, window 1024, messages/s", ">= 1,000,000", f"{rate:,.0f}", rate >= 1e6)
        for field, aim in (("p50_us", 1.2), ("p99_us", 2.0)):
            ours, floor, ratio = self.times("serial", "broker", field)
            seen = f"{ratio:.2f} ({ours:.0f} to {floor:.0f} us)"
            row(f"serial durable send, {field[:3]}, to a bare server", f"<= {aim:g}", seen, ratio <= aim)
        ours, echo, ratio = self.times("delivery", "memory", "p99_us")
        seen = f"{ratio:.2f} ({ours:.0f} to {echo:.0f} us)"
        row("delivery at 2000/s, memory, p99, to a bare echo", "<= 1.5", seen, ratio <= 1.5)
        rate = self.rate("http", "memory")
        row("HTTP send, 8 connections, memory, messages/s", ">= 100,000", f"{rate:,.0f}", rate >= 100_000)
        rate = self.rate("http", "broker")
        row("the same with fsync, messages/s", "-", f"{rate:,.0f}", True)
        rows[-1][-1] = "-"
        each = (self.memory["after"]["RssAnon"] - self.memory["before"]["RssAnon"]) / self.memory["messages"]
        what = f"memory, {self.memory['messages']:,} waiting messages, bytes each"
        row(what, "<= 32", f"{each:.1f}", each <= 32)
        took = statistics.median(self.restart)
        row("restart with 1,000,000 waiting messages, s", "<= 0.5", f"{took:.2f}", took <= 0.5)
        return table(["", "aim", "seen", "met"], rows)

    def rates(self) -> list[str]:
        head = ["", "messages/s", "lowest - highest", "client CPU", "broker CPU", "to L(n)", "to the other"]
        rows = []
        for row, found in self.samples.items():
            if "p50_us" in found[0].line:
                continue
            low, high = min(seen.rate for seen in found), max(seen.rate for seen in found)
            broker = [seen.broker_cpu for seen in found if seen.broker_cpu is not None]
            steady = [seen for seen in found if not seen.moved] or found
            limits = [seen.rate / seen.limit for seen in steady if seen.limit]
            per = [seen.line["cpu_seconds"] * 100_000 / max(1, seen.line["messages"]) for seen in found]
            rows.append([
                f"{row.name}: {NAMES[row.who]}",
                f"{statistics.median(seen.rate for seen in found):,.0f}",
                f"{low:,.0f} - {high:,.0f}",
                f"{statistics.median(per):.3f}",
                f"{statistics.median(broker):.3f}" if broker else "not seen",
                f"L({row.limit}) {statistics.median(limits):.0%}" if limits else "-",
                self.to_peer(row, found),
            ])
        return table(head, rows)

    def to_bare(self, name: str) -> float:
        found = self.find(name)
        return statistics.median(
            seen.rate / statistics.mean(line["rate"] for line in seen.beside) for seen in found
        )

    def to_peer(self, row: Row, found: list[Seen]) -> str:
        peers = [there for other, there in self.samples.items() if other.who == "peer" and other.name == row.name]
        if row.who == "peer" or not peers:
            return "-"
        ratio = statistics.median(ours.rate / theirs.rate for ours, theirs in zip(found, peers[0]))
        return f"{ratio:.1f}"

    def latencies(self) -> list[str]:
        rows = []
        fields = ["p50_us", "p90_us", "p99_us", "p999_us"]
        cells = lambda lines: [f"{statistics.median(line[field] for line in lines):.0f}" for field in fields]  # noqa: E731
        for row, found in self.samples.items():
            if "p50_us" not in found[0].line:
                continue
            rows.append([f"{row.name}: {NAMES[row.who]}", *cells([seen.line for seen in found])])
            beside = [line for seen in found for line in seen.beside]
            if beside:
                what = {"floor": "read, pwrite, fdatasync, write", "echo": "a bare WebSocket echo"}[row.beside]
                rows.append([f"{row.name}: {what}", *cells(beside)])
        return table(["microseconds", "p50", "p90", "p99", "p99.9"], rows)

    def losses(self) -> list[str]:
        """Messages that another server took and never delivered: of ours that is an error."""
        lines = [seen.line for row, found in self.samples.items() if row.who == "peer" for seen in found]
        counts = [f"{line['lost']} of {line['messages'] + line['lost']:,}" for line in lines if line.get("lost")]
        if not counts:
            return []
        text = f"The other server answered `ok` to messages that never came, in a run: {', '.join(counts)}."
        return [text, ""]

    def limits(self) -> list[str]:
        rows = []
        for row, found in self.samples.items():
            if row.limit and row.who == "broker":
                seen = [one.limit for one in found]
                rows.append([
                    f"L({row.limit})",
                    f"{statistics.median(seen):,.0f}",
                    f"{min(seen):,.0f} - {max(seen):,.0f}",
                ])
        return table(["records/s", "median", "lowest - highest"], rows)

    def text(self) -> list[str]:
        found = [seen for several in self.samples.values() for seen in several]
        foreign = [seen.foreign for seen in found if seen.broker_cpu is not None]
        moved = sum(seen.moved for seen in found)
        before, after = self.memory["before"], self.memory["after"]
        megabytes = {name: (after[name] - before[name]) / 1e6 for name in after}
        return [
            "## Durable broker",
            "",
            f"Messages of {SIZE} B. An `ok` goes out after fdatasync of its record, unless a row says `memory`. The client is a",
            "program that writes frames which were encoded before, a window at a time, and compares the answers as bytes;",
            "where a row says so, it is ceiba's own client with its calls and receipts instead. Broker and client are two",
            "processes on the same processors.",
            "",
            f"- other work took {statistics.median(foreign):.1%} of the machine in the median run and {max(foreign):.1%} in the"
            " worst",
            f"- {self.again} runs were made again because of that, or because the disk was another one after the run than",
            f"  before; {self.waited:.0f} s went by waiting for a disk that was slow; in {moved} of {len(found)} runs that"
            " count it",
            "  still moved",
            *noise(foreign),
            "",
            *self.goals(),
            "### The limit of the disk",
            "",
            "L(n): a program that appends n records of the size of a message's to a file filled with zeros, and syncs, and",
            "so on. It runs just before and after the run that it stands beside. A bare server reads what is there, writes",
            "and syncs it at once and answers, on one thread: what is left of L(n) when client and server take turns.",
            "",
            *self.limits(),
            "### Sends, and sends with deliveries",
            "",
            "`window W x C`: so many unanswered on each of C connections. `flow`: one producer and one consumer that",
            "acknowledges, from the first send until the broker has the last ack; each message came exactly once. CPU is",
            "seconds per 100,000 messages.",
            "",
            *self.rates(),
            "### Latency",
            "",
            "`serial`: a send, its answer, the next send. `delivery`: from the write of a send to the read of its delivery,",
            "2000 in a second.",
            "",
            *self.latencies(),
            *self.losses(),
            "### Memory and restart",
            "",
            f"- {self.memory['messages']:,} messages that wait: the broker's own memory went from"
            f" {before['RssAnon'] / 1e6:.0f} to {after['RssAnon'] / 1e6:.0f} MB, and what it",
            f"  maps of files by {megabytes['RssFile']:.0f} MB. Bodies are in files of the log, of which the system keeps in its",
            "  page cache what it has memory for; 16 MiB of the latest are part of the broker's own",
            f"- restarts after kill -9, with the log in the page cache, from the start of the process until a client is"
            f" logged in: {', '.join(f'{took:.2f}' for took in self.restart)} s",
            "",
            Path(__file__).with_name("PROFILE.md").read_text().strip(),
            "",
        ]
