"""The main job in Python: send every line of a file through a producer, receive and acknowledge them all by a
consumer, and print what was counted as one line of JSON.

    CEIBA_CONFIG=kapokmq://:SECRET@127.0.0.1:8011/job python job.py FILE

Lines are submitted in batches, and completions are taken in batches too: the window bounds what is on its
way. A second thread receives. A line ends with LF; a last line without one counts, an empty line is an empty
message. A line that is refused is named on stderr; when the other side does not answer within the deadline, no
further line is sent. Exit code 0: every line was acknowledged, and every acknowledged line came.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import ceiba

WINDOW = 8192  # submits on their way or not yet taken
BATCH = 1024  # of submits, of completions, of deliveries
IDLE = 10.0  # seconds without a delivery after everything was sent: what is missing is lost
LINGER = 0.3  # seconds after the last one: whoever comes now is a duplicate
SHOWN = 10  # refused lines that are named


class Sends:
    """How the sends ended."""

    def __init__(self) -> None:
        self.done = False
        self.given_up = False
        self.submitted = 0
        self.acknowledged = 0
        self.refused = 0
        self.unknown = 0
        self.failed: Counter[bytes] = Counter()

    def run(self, producer: ceiba.Producer, lines: list[bytes]) -> None:
        under_way: dict[int, int] = {}
        try:
            while under_way or (self.submitted < len(lines) and not self.given_up):
                room = min(BATCH, WINDOW - len(under_way), len(lines) - self.submitted)
                if self.given_up:
                    room = 0
                if room > 0:
                    try:
                        tokens = producer.submit_many(lines[self.submitted : self.submitted + room])
                    except ceiba.QueueFull:
                        room = 0
                    except ceiba.Error as error:
                        self.submitted += 1
                        self.end(self.submitted - 1, lines, error)
                        continue
                    else:
                        under_way.update(zip(tokens, range(self.submitted, self.submitted + len(tokens))))
                        self.submitted += len(tokens)
                # Wait only when nothing more can be submitted.
                for completion in ceiba.completions(BATCH, timeout=1 if room <= 0 else 0):
                    self.end(under_way.pop(completion.token), lines, completion.error)
        finally:
            self.done = True

    def end(self, line: int, lines: list[bytes], error: ceiba.Error | None) -> None:
        if error is None:
            self.acknowledged += 1
            return
        self.failed[lines[line]] += 1
        how = "was refused"
        if error.outcome == "unknown":
            how = "may have been sent"
            self.unknown += 1
        else:
            self.refused += 1
        # A line that cannot be sent says nothing of the next one; a broker that is gone does.
        if error.retryable or error.outcome == "unknown":
            self.given_up = True
        if self.refused + self.unknown <= SHOWN:
            print(f"line {line + 1} {how}: {error.kind}: {error}", file=sys.stderr)


class Receiver(threading.Thread):
    """Receives and acknowledges until everything came, or nothing comes any more."""

    def __init__(self, consumer: ceiba.Consumer, sends: Sends) -> None:
        super().__init__(name="receiver")
        self.consumer = consumer
        self.sends = sends
        self.got: Counter[bytes] = Counter()
        self.count = 0
        self.last = time.monotonic()
        self.error: ceiba.Error | None = None

    def run(self) -> None:
        try:
            self.receive()
        except ceiba.Error as error:
            self.error = error

    def receive(self) -> None:
        lingering = False
        since = time.monotonic()
        while True:
            deliveries = self.consumer.receive(BATCH, LINGER)
            if deliveries:
                self.got.update([delivery.data for delivery in deliveries])
                for error in self.consumer.ack_many([delivery.code for delivery in deliveries]):
                    # A wire without acknowledgements counts a message as consumed when it is received.
                    if error is not None and not isinstance(error, ceiba.Unsupported):
                        raise error
                self.count += len(deliveries)
                since = time.monotonic()
                if not lingering:
                    self.last = since
            elif lingering or (self.sends.done and time.monotonic() - since > IDLE):
                return
            elif not self.sends.done:
                since = time.monotonic()
            lingering = self.sends.done and self.count >= self.sends.acknowledged


def close(*clients: ceiba.Producer | ceiba.Consumer) -> bool:
    closed = True
    for client in clients:
        try:
            client.close()
        except ceiba.Error as error:
            print(f"closing: {error.kind}: {error}", file=sys.stderr)
            closed = False
    return closed


def job(config: str, lines: list[bytes]) -> bool:
    sends = Sends()
    with ceiba.Consumer(config) as consumer, ceiba.Producer(config) as producer:
        start = time.monotonic()
        receiver = Receiver(consumer, sends)
        receiver.start()
        try:
            sends.run(producer, lines)
        finally:
            receiver.join()
        # Closed before the report: acknowledgements that cannot be written are part of it.
        closed = close(producer, consumer)
    seconds = receiver.last - start

    # Lines may be alike, so they are counted by their content.
    sent = Counter(lines[: sends.submitted])
    acknowledged = sent - sends.failed
    lost = (acknowledged - receiver.got).total()
    unexpected = sum(count for line, count in receiver.got.items() if line not in sent)
    duplicates = (receiver.got - sent).total() - unexpected
    report = {
        "language": "python",
        "lines": len(lines),
        "sent": sends.submitted,
        "acknowledged": sends.acknowledged,
        "refused": sends.refused,
        "unknown": sends.unknown,
        "received": receiver.count,
        "lost": lost,
        "duplicates": duplicates,
        "unexpected": unexpected,
        "seconds": round(seconds, 3),
        "messages_per_second": round(receiver.count / seconds) if seconds > 0 else 0,
    }
    print(json.dumps(report))
    if receiver.error is not None:
        print(f"receiving: {receiver.error.kind}: {receiver.error}", file=sys.stderr)
    complete = sends.acknowledged == len(lines) and lost == 0 and unexpected == 0
    return complete and closed and receiver.error is None


def main() -> int:
    config = os.environ.get("CEIBA_CONFIG")
    if len(sys.argv) != 2 or not config:
        print("usage: CEIBA_CONFIG=kapokmq://:SECRET@HOST:PORT/TOPIC python job.py FILE", file=sys.stderr)
        return 2
    try:
        text = Path(sys.argv[1]).read_bytes()
        lines = text.removesuffix(b"\n").split(b"\n") if text else []
        return 0 if job(config, lines) else 1
    except (OSError, ceiba.Error) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
