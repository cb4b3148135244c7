"""The decorator `strategy`: retry, timeout, rate limit and circuit breaker around any function or coroutine."""

from __future__ import annotations

import functools
import itertools

from . import _ceiba
from ._errors import Error, Forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta
    from typing import Any, ParamSpec, TypeVar, Union

    from ._ceiba import _HostCall, _Run, _Strategy

    P = ParamSpec("P")
    R = TypeVar("R")
    Section = Mapping[str, Any]
    Span = Union[float, str, timedelta]
    RetryOn = Union[type[BaseException], tuple[type[BaseException], ...], Callable[[BaseException], bool]]

_names: dict[str, Iterator[int]] = {}


def strategy(
    *,
    retry: int | Section | None = None,
    timeout: Span | Section | None = None,
    rate_limit: str | Section | None = None,
    circuit_breaker: int | Section | None = None,
    strategies: Iterable[Section] | None = None,
    deadline: float | timedelta | None = None,
    retry_on: RetryOn | None = None,
    id: str | None = None,
    threads: int = 16,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that puts strategies around a function or a coroutine function.

        @ceiba.strategy(retry=3, timeout=2)
        def charge(order): ...

    Each is a section of a config, or short: `retry` the attempts in all, `timeout` the seconds of each attempt,
    `rate_limit` a text such as "100/s" or "5/10s", `circuit_breaker` the failures in a row that open it. From the
    outside in they stand as circuit_breaker, retry, rate_limit, timeout; `strategies` is a list of sections in any
    other order, in place of those four. `deadline` bounds the whole call, waits included; there is none unless set.

    Which exceptions are tried again says `retry_on`: classes, or a function of the exception. Unless set these are
    all of `Exception`, but of a `ceiba.Error` only the `retryable` ones. A retry honours their `retry_after`.

    Arguments and result are the function's own. When the last attempt raises, its exception is raised, with the
    `ceiba.Error` of the whole call as its `__cause__`, or as a note where it has a cause of its own; that error's
    `parts` are the attempts. When a strategy ends the call (`Timeout`, `Limited`, `CircuitOpen`), its error is raised.

    A coroutine function is awaited in the caller's loop and cancelled at its timeout. A plain function runs on the
    caller's thread; with a timeout or a deadline on one of `threads` others, with the caller's context variables,
    for only so can it be left behind when it does not return.

    The strategies are a producer whose `id` is module and name of the function, unless set: `producer_status(id)`
    shows their state and `producer_control(id, command)` sets it. A call opens it, again also after a fork or a
    `shutdown`; all calls of one process share it.
    """
    if strategies is None:
        sections = _sections(circuit_breaker, retry, rate_limit, timeout)
    elif any(given is not None for given in (retry, timeout, rate_limit, circuit_breaker)):
        raise TypeError("give either `strategies` or single ones by name")
    else:
        sections = [dict(section) for section in strategies]
    if not sections:
        raise TypeError("give at least one strategy, such as retry=3")
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise ValueError(f"`threads` is 1 to 1024, not {threads!r}")
    timed = deadline is not None or any(section.get("type") == "timeout" for section in sections)
    again = _judge(retry_on)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        import inspect

        if not callable(function):
            raise TypeError(f"a strategy decorates a function, not {type(function).__name__}")
        call = getattr(function, "__call__", function)
        for kind in (inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            if kind(function) or kind(call):
                raise TypeError("a generator cannot be decorated: what it yielded cannot be taken back")
        name = id if id is not None else _name(function)
        stack = _ceiba._Strategy(name, sections, deadline)
        wrapper: Any
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
            from . import _strategy_async

            wrapper = _strategy_async.wrapper(stack, function, again, timed)
        elif timed:
            wrapper = _on_threads(stack, function, again, threads, name)
        else:
            wrapper = _in_place(stack, function, again)
        wrapped: Callable[P, R] = functools.update_wrapper(wrapper, function)
        return wrapped

    return decorate


def _sections(
    circuit_breaker: int | Section | None,
    retry: int | Section | None,
    rate_limit: str | Section | None,
    timeout: Span | Section | None,
) -> list[dict[str, Any]]:
    given: tuple[tuple[str, Any, Callable[[Any], dict[str, Any]]], ...] = (
        ("circuit_breaker", circuit_breaker, _breaker),
        ("retry", retry, _retry),
        ("rate_limit", rate_limit, _rate),
        ("timeout", timeout, _timeout),
    )
    sections = []
    for kind, value, short in given:
        if value is not None:
            section = dict(value) if hasattr(value, "keys") else short(value)
            sections.append({"type": kind, **section})
    return sections


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` is a whole number or a dict, not {type(value).__name__}")
    return value


def _breaker(value: Any) -> dict[str, Any]:
    return {"consecutive": _whole("circuit_breaker", value)}


def _retry(value: Any) -> dict[str, Any]:
    return {"max_attempts": _whole("retry", value)}


def _rate(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise TypeError(f"`rate_limit` is a text such as '100/s' or a dict, not {type(value).__name__}")
    rate, slash, per = value.partition("/")
    if not slash or not rate.strip().isdecimal() or not per.strip():
        raise ValueError(f"`rate_limit` is a text such as '100/s' or '5/10s', not {value!r}")
    per = per.strip()
    return {
        "limiter": "sliding_window",
        "rate": int(rate),
        "per": per if per[0].isdecimal() else f"1{per}",
    }


def _timeout(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"after": value}
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(
            f"`timeout` is a number of seconds, a timedelta, a text such as '2s' or a dict,"
            f" not {type(value).__name__}"
        )
    if not 0 < seconds < 315_360_000:
        raise ValueError(f"`timeout` is more than 0 and less than ten years, not {value!r}")
    return {"after": f"{max(1, round(seconds * 1_000_000))}us"}


def _judge(retry_on: RetryOn | None) -> Callable[[BaseException], bool | None]:
    if retry_on is None:

        def default(error: BaseException) -> bool | None:
            # What an error of this package says of itself holds.
            return None if isinstance(error, Error) else isinstance(error, Exception)

        return default
    if isinstance(retry_on, (type, tuple)):
        classes = retry_on
        for each in classes if isinstance(classes, tuple) else (classes,):
            if not (isinstance(each, type) and issubclass(each, BaseException)):
                raise TypeError("`retry_on` is a class of exceptions, a tuple of them, or a function")
        return lambda error: isinstance(error, classes)
    if not callable(retry_on):
        raise TypeError("`retry_on` is a class of exceptions, a tuple of them, or a function")
    decide = retry_on

    def decided(error: BaseException) -> bool | None:
        try:
            return bool(decide(error))
        except Exception:
            # A fault of the judge must not hide the exception that it judges.
            return False

    return decided


def _name(function: Any) -> str:
    inner = getattr(function, "func", function)
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    name = f"{getattr(inner, '__module__', None) or 'python'}.{name}"[-200:]
    number = next(_names.setdefault(name, itertools.count(1)))
    return name if number == 1 else f"{name}-{number}"


def _in_place(
    stack: _Strategy, function: Callable[..., R], again: Callable[[BaseException], bool | None]
) -> Callable[..., R]:
    """Attempts are made by the caller, on his own thread."""

    def call(*args: Any, **kwargs: Any) -> R:
        run = stack.start()
        raised: dict[int, BaseException] = {}
        try:
            while (attempt := run.next()) is not None:
                try:
                    value = function(*args, **kwargs)
                except Exception as error:
                    raised[attempt.number] = error
                    attempt.failed(error, again(error))
                else:
                    attempt.sent()
                    try:
                        run.next()
                    except Forked:
                        # The function forked, and this is the child.
                        pass
                    return value
            raise ended(run, raised)
        finally:
            run.drop()
            # The exceptions know this frame.
            raised.clear()

    return call


def _on_threads(
    stack: _Strategy,
    function: Callable[..., R],
    again: Callable[[BaseException], bool | None],
    threads: int,
    name: str,
) -> Callable[..., R]:
    """Attempts are made by other threads, which are left behind when they take too long."""
    from ._threads import Threads

    others = Threads(threads, f"ceiba-{name}")

    def call(*args: Any, **kwargs: Any) -> R:
        from contextvars import copy_context

        run = stack.start()
        values: dict[int, R] = {}
        raised: dict[int, BaseException] = {}

        def make(attempt: _HostCall) -> None:
            if attempt.abandoned:
                return
            try:
                values[attempt.number] = function(*args, **kwargs)
            except BaseException as error:
                raised[attempt.number] = error
                attempt.failed(error, again(error))
            else:
                attempt.sent()

        last: Callable[[], None] | None = None
        try:
            while (attempt := run.next()) is not None:
                # Nobody waits for the one before any more.
                if last is not None:
                    others.forget(last)
                last = functools.partial(copy_context().run, make, attempt)
                others.run(last)
            won = run.outcome()[0]
            if won is not None:
                return values[won]
            raise ended(run, raised)
        finally:
            if last is not None:
                others.forget(last)
            run.drop()
            raised.clear()
            values.clear()

    return call


def ended(run: _Run, raised: dict[int, BaseException]) -> BaseException:
    """What a call that failed raises."""
    _, number, error = run.outcome()
    assert error is not None
    original = raised.get(number) if number is not None else None
    if original is None:
        # A strategy ended it; what the function raised before is why.
        error.__cause__ = raised[max(raised)] if raised else None
        return error
    if original.__cause__ is None and original.__context__ is None:
        original.__cause__ = error
    elif hasattr(original, "add_note"):
        original.add_note(f"ceiba: {error.kind} after {error.attempts} attempt(s): {error}")
    return original
