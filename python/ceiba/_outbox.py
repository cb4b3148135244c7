"""The classes `Outbox` and `AsyncOutbox`: the rows of an outbox."""

from __future__ import annotations

from . import _ceiba

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from datetime import timedelta
    from typing import Any, Literal

    State = Literal["pending", "leased", "done", "dead"]
    Time = float | timedelta | None
    _Call = tuple[str, dict[str, Any]]


class _Target:
    def __init__(self, target: str) -> None:
        if not isinstance(target, str):
            raise TypeError(f"`target` must be a str, not {type(target).__name__}")
        self._target = target

    @property
    def target(self) -> str:
        """The id of a producer or the address of a store, as it was given."""
        return self._target

    def __repr__(self) -> str:
        # An address may hold a password.
        shown = self._target.split(":", 1)[0] + ":…" if "@" in self._target else self._target
        return f"<ceiba.{type(self).__name__} {shown!r}>"


class Outbox(_Target):
    """The rows of an outbox: what was accepted and not sent yet, and what was given up.

    `target` is the id of an open producer that has an outbox, for its rows alone, or the address of a store, as in
    `"sqlite:outbox.db"`, for those of all producers. Rows and answers are dicts; new keys may come. Every call may
    be made from any thread and waits, up to `timeout` or 30 seconds.

    A row has `id`, `producer`, `state` ("pending", "leased", "done", "dead"), `attempts` (out of the store, that
    failed), `size`, `accepted`, `created`, `updated`, `short`, `next_attempt` or `leased_until`, and where there is
    one `topic`, `order_key`, `dedup` and `error`. Times are texts such as "2026-01-31T12:00:00.000Z".
    """

    def _run(self, call: _Call, timeout: Time) -> dict[str, Any]:
        return _ceiba._outbox(call[0], self._target, call[1], timeout)

    def list(
        self,
        *,
        state: State | None = None,
        producer: str | None = None,
        limit: int = 100,
        after: str | None = None,
        timeout: Time = None,
    ) -> dict[str, Any]:
        """A page of rows, oldest first: `{"rows": [...], "next": ...}`; give `next`, unless `None`, as `after`."""
        return self._run(_page("list", state, producer, limit, after), timeout)

    def rows(
        self,
        *,
        state: State | None = None,
        producer: str | None = None,
        page: int = 100,
        timeout: Time = None,
    ) -> Iterator[dict[str, Any]]:
        """All rows, one by one, read `page` at a time: none is skipped, whatever is deleted meanwhile."""
        after: str | None = None
        while True:
            found = self.list(state=state, producer=producer, limit=page, after=after, timeout=timeout)
            yield from found["rows"]
            after = found["next"]
            if after is None:
                return

    def show(self, id: str, *, timeout: Time = None) -> dict[str, Any]:
        """One row with its `message`: the fields and `body`, or `body_base64` where that is not UTF-8."""
        return self._run(("show", {"id": id}), timeout)

    def retry(self, ids: Iterable[str], *, timeout: Time = None) -> int:
        """Makes pending and dead rows due at once, up to 10000; dead ones begin anew. Returns how many there were. An
        open producer with this outbox, of any process, sends them."""
        return int(self._run(_ids("retry", ids), timeout)["retried"])

    def retry_all(self, *, producer: str | None = None, timeout: Time = None) -> int:
        """Makes all pending and dead rows due at once. Returns how many there were."""
        return int(self._run(("retry_all", _given(producer=producer)), timeout)["retried"])

    def drop(self, ids: Iterable[str], *, timeout: Time = None) -> dict[str, Any]:
        """Deletes rows for good, up to 10000: `{"dropped": 1, "leased": [...], "unknown": [...]}`; leased ones are
        being sent and stay."""
        return self._run(_ids("drop", ids), timeout)

    def export(
        self,
        *,
        state: State | None = None,
        producer: str | None = None,
        page: int = 100,
        timeout: Time = None,
    ) -> Iterator[str]:
        """All rows with all that is in them, each as one line of text for `import_`, read `page` at a time."""
        after: str | None = None
        while True:
            found = self._run(_page("export", state, producer, page, after), timeout)
            yield from found["lines"]
            after = found["next"]
            if after is None:
                return

    def import_(self, lines: Iterable[str], *, page: int = 1000, timeout: Time = None) -> dict[str, Any]:
        """Puts lines of an export into this outbox, `page` at a time, and at most 32 MiB: `{"imported": 2, "known":
        0}`. Known ones are there already, from an earlier import too; one that was sent meanwhile and is not kept by
        `keep_done` is not known any more. A page with a wrong line is not imported. A file that is not there is
        made."""
        counts = {"imported": 0, "known": 0}
        for some in _pages(lines, page):
            _add(counts, self._run(("import", {"lines": some}), timeout))
        return counts

    def stats(self, *, producer: str | None = None, timeout: Time = None) -> dict[str, Any]:
        """Counts of each producer's rows: `{"store": "sqlite", "producers": [{"producer": ..., "pending": 1, ...}]}`."""
        return self._run(("stats", _given(producer=producer)), timeout)

    def purge(
        self,
        older: str,
        *,
        state: Literal["done", "dead"] = "done",
        producer: str | None = None,
        timeout: Time = None,
    ) -> int:
        """Deletes rows that ended longer ago than `older`, such as `"7d"`. Returns how many. Dead ones go also where
        nobody was told of them yet, for which `keep_dead` waits."""
        return int(self._run(("purge", _given(older=older, state=state, producer=producer)), timeout)["purged"])

    def drain(self, *, timeout: Time = None) -> dict[str, Any]:
        """Tries every pending row of an open producer once, now, and waits: `{"sent": 9, "failed": 1, "given_up":
        0}`. It waits until whoever `notify` names was told of what was given up.

        With `ordered` it follows the rows of each key to the end of their line. What stands behind one that failed,
        or that another process is sending, waits on: a drain never waits for rows that other processes send. The
        rows of a call that ends early are tried all the same."""
        return self._run(("drain", {}), timeout)


class AsyncOutbox(_Target):
    """`Outbox` for coroutines: each call waits on a thread, and the event loop goes on.

    A call whose coroutine is cancelled ends in the background, up to its `timeout`.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._sync = Outbox(target)

    async def _run(self, call: _Call, timeout: Time) -> dict[str, Any]:
        # Not above: who imports the package may have no loop.
        import asyncio

        return await asyncio.to_thread(self._sync._run, call, timeout)

    async def list(
        self,
        *,
        state: State | None = None,
        producer: str | None = None,
        limit: int = 100,
        after: str | None = None,
        timeout: Time = None,
    ) -> dict[str, Any]:
        """As `Outbox.list`."""
        return await self._run(_page("list", state, producer, limit, after), timeout)

    async def rows(
        self,
        *,
        state: State | None = None,
        producer: str | None = None,
        page: int = 100,
        timeout: Time = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """As `Outbox.rows`, for `async for`."""
        after: str | None = None
        while True:
            found = await self.list(state=state, producer=producer, limit=page, after=after, timeout=timeout)
            for row in found["rows"]:
                yield row
            after = found["next"]
            if after is None:
                return

    async def show(self, id: str, *, timeout: Time = None) -> dict[str, Any]:
        """As `Outbox.show`."""
        return await self._run(("show", {"id": id}), timeout)

    async def retry(self, ids: Iterable[str], *, timeout: Time = None) -> int:
        """As `Outbox.retry`."""
        return int((await self._run(_ids("retry", ids), timeout))["retried"])

    async def retry_all(self, *, producer: str | None = None, timeout: Time = None) -> int:
        """As `Outbox.retry_all`."""
        return int((await self._run(("retry_all", _given(producer=producer)), timeout))["retried"])

    async def drop(self, ids: Iterable[str], *, timeout: Time = None) -> dict[str, Any]:
        """As `Outbox.drop`."""
        return await self._run(_ids("drop", ids), timeout)

    async def export(
        self,
        *,
        state: State | None = None,
        producer: str | None = None,
        page: int = 100,
        timeout: Time = None,
    ) -> AsyncIterator[str]:
        """As `Outbox.export`, for `async for`."""
        after: str | None = None
        while True:
            found = await self._run(_page("export", state, producer, page, after), timeout)
            for line in found["lines"]:
                yield line
            after = found["next"]
            if after is None:
                return

    async def import_(
        self, lines: Iterable[str], *, page: int = 1000, timeout: Time = None
    ) -> dict[str, Any]:
        """As `Outbox.import_`."""
        counts = {"imported": 0, "known": 0}
        for some in _pages(lines, page):
            _add(counts, await self._run(("import", {"lines": some}), timeout))
        return counts

    async def stats(self, *, producer: str | None = None, timeout: Time = None) -> dict[str, Any]:
        """As `Outbox.stats`."""
        return await self._run(("stats", _given(producer=producer)), timeout)

    async def purge(
        self,
        older: str,
        *,
        state: Literal["done", "dead"] = "done",
        producer: str | None = None,
        timeout: Time = None,
    ) -> int:
        """As `Outbox.purge`."""
        call = ("purge", _given(older=older, state=state, producer=producer))
        return int((await self._run(call, timeout))["purged"])

    async def drain(self, *, timeout: Time = None) -> dict[str, Any]:
        """As `Outbox.drain`."""
        return await self._run(("drain", {}), timeout)


# Characters of lines that one call of an import takes, beyond the first line.
_LARGEST = 32 << 20


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _page(
    operation: str, state: str | None, producer: str | None, limit: int, after: str | None
) -> _Call:
    return operation, _given(state=state, producer=producer, limit=limit, after=after)


def _ids(operation: str, ids: Iterable[str]) -> _Call:
    if isinstance(ids, str):
        raise TypeError("`ids` is a list of ids, not one id")
    return operation, {"ids": [*ids]}


def _pages(lines: Iterable[str], page: int) -> Iterator[list[str]]:
    if isinstance(lines, str):
        raise TypeError("`lines` is a list of lines, not one text")
    some: list[str] = []
    size = 0
    for line in lines:
        if some and (len(some) >= page or size + len(line) > _LARGEST):
            yield some
            some, size = [], 0
        some.append(line)
        size += len(line)
    if some:
        yield some


def _add(counts: dict[str, int], more: dict[str, Any]) -> None:
    for name in counts:
        counts[name] += int(more[name])
