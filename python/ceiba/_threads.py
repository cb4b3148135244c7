"""Threads that run what may have to be left behind."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds that a thread waits for work.
_PATIENCE = 10.0


class _Line:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.changed = threading.Condition(threading.Lock())
        self.work: OrderedDict[Callable[[], None], None] = OrderedDict()
        self.idle = 0
        self.threads = 0


class Threads:
    """Up to `most` daemon threads, started when they are needed."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._line = _Line()

    def run(self, work: Callable[[], None]) -> None:
        """Has a thread call `work`, which raises nothing, as soon as one is free."""
        line = self._line
        if line.process != os.getpid():
            # A child of a fork has none of the threads.
            line = self._line = _Line()
        with line.changed:
            line.work[work] = None
            if line.idle >= len(line.work) or line.threads >= self._most:
                line.changed.notify()
                return
            line.threads += 1
        try:
            threading.Thread(target=_serve, args=(line,), name=self._name, daemon=True).start()
        except BaseException:
            with line.changed:
                line.threads -= 1
                if line.threads == 0:
                    line.work.clear()
                    raise

    def forget(self, work: Callable[[], None]) -> None:
        """Takes back what no thread has begun."""
        line = self._line
        # A look without the lock, since most has begun. Nothing of the parent is touched in a child of a fork.
        if work in line.work and line.process == os.getpid():
            with line.changed:
                line.work.pop(work, None)


def _serve(line: _Line) -> None:
    while True:
        with line.changed:
            line.idle += 1
            try:
                if not line.changed.wait_for(lambda: line.work, _PATIENCE):
                    line.threads -= 1
                    return
                work = line.work.popitem(last=False)[0]
            finally:
                line.idle -= 1
        work()
        del work
