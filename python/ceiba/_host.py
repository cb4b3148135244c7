"""Calls the senders that `register_host` was given: plain ones on threads, coroutines in an event loop.

All threads are daemons of Python's own, so that the end of the program waits for none of them.
"""

from __future__ import annotations

import os
import threading

from ._ceiba import Receipt

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from ._ceiba import Message, _HostCall, _HostCalls

# Seconds that a thread waits for a call while another one waits too.
_PATIENCE = 10.0


def start(
    calls: _HostCalls,
    sender: Callable[[Message], Any],
    loop: asyncio.AbstractEventLoop | None,
    name: str,
) -> None:
    """Starts the first of the threads; each starts the next when no other waits."""
    arguments = (calls, sender, loop, name)
    threading.Thread(target=_serve, args=arguments, name=f"ceiba-host-{name}", daemon=True).start()


def _serve(
    calls: _HostCalls,
    sender: Callable[[Message], Any],
    loop: asyncio.AbstractEventLoop | None,
    name: str,
) -> None:
    while True:
        taken = calls.take(_PATIENCE)
        if taken is None:
            return
        call, alone = taken
        del taken
        if alone:
            try:
                start(calls, sender, loop, name)
            except RuntimeError:
                # No further thread can be had: calls wait for this one.
                pass
        _answer(call, sender, loop)
        del call


def _answer(
    call: _HostCall, sender: Callable[[Message], Any], loop: asyncio.AbstractEventLoop | None
) -> None:
    message = call.message
    if message is None:
        return
    try:
        sent = sender(message)
        if hasattr(sent, "__await__"):
            _await_in(loop or _own_loop(), call, sent)
        else:
            call.sent(_id(sent))
    except BaseException as error:
        call.failed(error)


def _id(sent: object) -> str | None:
    if isinstance(sent, Receipt):
        return sent.message_id
    return None if sent is None else str(sent)


def _await_in(loop: asyncio.AbstractEventLoop, call: _HostCall, awaitable: Any) -> None:
    late = False

    async def ended() -> None:
        try:
            call.sent(_id(await awaitable))
        except BaseException as error:
            # All of them: none may end the loop, which others use too.
            call.failed(TimeoutError("the deadline passed") if late else error)

    running: set[asyncio.Task[None]] = set()

    def begin() -> None:
        # A loop knows its tasks weakly.
        task = loop.create_task(ended())
        running.add(task)
        task.add_done_callback(running.discard)

        def cancel() -> None:
            nonlocal late
            late = True
            task.cancel()

        if call.remaining is not None:
            # The deadline of the send is that of the coroutine, so that none is left behind.
            timer = loop.call_later(call.remaining, cancel)
            task.add_done_callback(lambda _: timer.cancel())

    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:
        # The loop is closed.
        if hasattr(awaitable, "close"):
            awaitable.close()
        raise


_loop: tuple[int, asyncio.AbstractEventLoop] | None = None
_loop_lock = threading.Lock()


def _own_loop() -> asyncio.AbstractEventLoop:
    """The event loop of the library, on a thread of its own."""
    global _loop
    with _loop_lock:
        if _loop is None or _loop[0] != os.getpid():
            import asyncio

            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="ceiba-host-loop", daemon=True).start()
            _loop = os.getpid(), loop
        return _loop[1]


def _after_fork() -> None:
    global _loop_lock
    _loop_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
