"""Decorated coroutine functions: the strategies are driven by the caller's event loop."""

from __future__ import annotations

import asyncio
import itertools
from weakref import WeakKeyDictionary

from . import _ceiba
from ._strategy import ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._ceiba import _HostCall, _Run, _Strategy

# Seconds that a coroutine may take to end once it was cancelled.
_GRACE = 1.0

_tokens = itertools.count(1)


class _Loop:
    """The calls of one event loop that wait to be woken."""

    def __init__(self) -> None:
        self.wakes = _ceiba._Wakes()
        self.waiting: dict[int, asyncio.Future[None]] = {}

    def wake(self) -> None:
        for token in self.wakes.take():
            future = self.waiting.get(token)
            if future is not None and not future.done():
                future.set_result(None)


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()


def _of(loop: asyncio.AbstractEventLoop) -> _Loop:
    found = _loops.get(loop)
    if found is None:
        found = _Loop()
        loop.add_reader(found.wakes.fileno(), found.wake)
        _loops[loop] = found
    return found


def wrapper(
    stack: _Strategy,
    function: Callable[..., Any],
    again: Callable[[BaseException], bool | None],
    timed: bool,
) -> Callable[..., Any]:
    """The coroutine function that takes the place of `function`."""
    if timed:

        async def with_tasks(*args: Any, **kwargs: Any) -> Any:
            run = stack.start()
            call = _Timed(run, again)
            try:
                return await call.end(lambda: function(*args, **kwargs))
            finally:
                run.drop()
                await call.give_up()
                # An exception knows the frames that know it.
                call.raised.clear()

        return with_tasks

    async def in_place(*args: Any, **kwargs: Any) -> Any:
        run = stack.start()
        raised: dict[int, BaseException] = {}
        try:
            while (attempt := await _next(run)) is not None:
                try:
                    value = await function(*args, **kwargs)
                except Exception as error:
                    raised[attempt.number] = error
                    attempt.failed(error, again(error))
                else:
                    attempt.sent()
                    run.poll(None, 0)
                    return value
            raise ended(run, raised)
        finally:
            run.drop()
            raised.clear()

    return in_place


async def _next(run: _Run) -> _HostCall | None:
    """Waits for the next attempt to make; `None`: the call has ended."""
    attempt = run.poll(None, 0)
    if attempt is not None or run.ended:
        return attempt
    loop = asyncio.get_running_loop()
    calls, token = _of(loop), next(_tokens)
    try:
        while True:
            woken = calls.waiting[token] = loop.create_future()
            attempt = run.poll(calls.wakes, token)
            if attempt is not None or run.ended:
                return attempt
            await woken
    finally:
        del calls.waiting[token]


class _Timed:
    """A call whose attempts may have to be cancelled: each is a task."""

    def __init__(self, run: _Run, again: Callable[[BaseException], bool | None]) -> None:
        self.run = run
        self.again = again
        self.values: dict[int, Any] = {}
        self.raised: dict[int, BaseException] = {}
        self.task: asyncio.Task[None] | None = None

    async def end(self, begin: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        calls, token = _of(loop), next(_tokens)

        def wake(_: object) -> None:
            woken = calls.waiting.get(token)
            if woken is not None and not woken.done():
                woken.set_result(None)

        try:
            while True:
                woken = calls.waiting[token] = loop.create_future()
                attempt = self.run.poll(calls.wakes, token)
                if attempt is not None:
                    await self.give_up()
                    self.task = loop.create_task(self.make(attempt, begin))
                    self.task.add_done_callback(wake)
                elif self.run.ended:
                    break
                else:
                    await woken
        finally:
            del calls.waiting[token]
        won = self.run.outcome()[0]
        if won is not None:
            return self.values[won]
        raise ended(self.run, self.raised)

    async def make(self, attempt: _HostCall, begin: Callable[[], Any]) -> None:
        try:
            self.values[attempt.number] = await begin()
        except BaseException as error:
            self.raised[attempt.number] = error
            # What ends a program too: the caller raises it, outside of this task.
            attempt.failed(error, self.again(error))
        else:
            attempt.sent()

    async def give_up(self) -> None:
        """Cancels the attempt under way and waits for its end, but not for ever."""
        task, self.task = self.task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE)
