"""The decorator `strategy` around plain functions."""

from __future__ import annotations

import contextvars
import functools
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ceiba
from conftest import Program, eventually
from test_process import wait_for


class Flaky:
    """Fails so many times, then returns its arguments."""

    def __init__(self, failures: int, error: Callable[[int], BaseException] = lambda n: OSError(f"no {n}")) -> None:
        self.left = failures
        self.calls = 0
        self.error = error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error(self.calls)
        return args, kwargs


# Where it runs: on the caller's thread, or on another one because of a timeout.
@pytest.fixture(params=[{}, {"timeout": 20}], ids=["in place", "on threads"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_arguments_and_result_are_kept(where: dict[str, Any]) -> None:
    flaky = Flaky(2)
    given = object()

    @ceiba.strategy(retry=3, **where)
    def send(first: object, *rest: int, key: str = "none") -> Any:
        """What it does."""
        return flaky(first, *rest, key=key)

    assert send(given, 2, 3, key="k") == ((given, 2, 3), {"key": "k"})
    assert flaky.calls == 3
    assert (send.__name__, send.__doc__, send.__module__) == ("send", "What it does.", __name__)

    class Service:
        @ceiba.strategy(retry=2, **where)
        def name(self) -> str:
            return type(self).__name__

    assert Service().name() == "Service"
    # Anything that can be called, whatever it returns.
    assert ceiba.strategy(retry=2, **where)(functools.partial(max, 3))(2) == 3
    assert ceiba.strategy(retry=2, **where)(lambda: None)() is None


def test_the_last_exception_is_raised_as_itself(where: dict[str, Any]) -> None:
    flaky = Flaky(9)
    with pytest.raises(OSError, match="no 3") as caught:
        ceiba.strategy(retry=3, **where)(flaky)()
    whole = caught.value.__cause__
    assert isinstance(whole, ceiba.Unavailable)
    assert (whole.attempts, [str(part.error) for part in whole.parts]) == (3, [f"OSError: no {n}" for n in (1, 2, 3)])
    # Its traceback leads into the function.
    assert "__call__" in [frame.name for frame in caught.traceback]


def test_an_exception_with_a_cause_keeps_it_and_gets_a_note(where: dict[str, Any]) -> None:
    def send() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        ceiba.strategy(retry=2, **where)(send)()
    assert isinstance(caught.value.__cause__, KeyError)
    if hasattr(caught.value, "__notes__"):
        (note,) = caught.value.__notes__
        assert note.startswith("ceiba: unavailable after 2 attempt(s)")


def test_what_is_tried_again(where: dict[str, Any]) -> None:
    def attempts(error: BaseException, **options: Any) -> int:
        flaky = Flaky(9, lambda n: error)
        with pytest.raises(type(error)):
            ceiba.strategy(retry=3, **where, **options)(flaky)()
        return flaky.calls

    assert attempts(ValueError()) == 3
    assert attempts(ValueError(), retry_on=OSError) == 1
    assert attempts(ConnectionError(), retry_on=(OSError, KeyError)) == 3
    assert attempts(ValueError("again"), retry_on=lambda error: str(error) == "again") == 3
    assert attempts(ValueError("no"), retry_on=lambda error: str(error) == "again") == 1
    assert attempts(ValueError(), retry_on=lambda error: 1 / 0) == 1
    # Errors of ceiba say it themselves, unless they are named.
    assert attempts(ceiba.Unavailable(retryable=True)) == 3
    assert attempts(ceiba.InvalidArgument()) == 1
    assert attempts(ceiba.InvalidArgument(), retry_on=ceiba.Error) == 3
    # Those that end a program are none to try again.
    assert attempts(KeyboardInterrupt()) == 1
    assert attempts(SystemExit()) == 1


def test_waits_and_the_wait_that_an_error_asks_for(where: dict[str, Any]) -> None:
    backoff = {"max_attempts": 2, "backoff": {"type": "fixed", "wait": "150ms"}}
    start = time.monotonic()
    ceiba.strategy(retry=backoff, **where)(Flaky(1))()
    assert 0.15 <= time.monotonic() - start < 5
    start = time.monotonic()
    throttled = Flaky(1, lambda n: ceiba.Throttled("slow", retryable=True, retry_after=0.3))
    ceiba.strategy(retry=2, **where)(throttled)()
    assert 0.3 <= time.monotonic() - start < 5


def test_a_timeout_leaves_the_attempt_behind() -> None:
    let_go = threading.Event()
    calls: list[int] = []

    @ceiba.strategy(retry=2, timeout=0.1)
    def stuck() -> str:
        calls.append(1)
        # The second attempt is quick.
        if len(calls) == 1:
            let_go.wait(30)
            return "late"
        return "quick"

    start = time.monotonic()
    assert stuck() == "quick"
    assert time.monotonic() - start < 5
    let_go.set()
    always = ceiba.strategy(timeout=0.1)(lambda: time.sleep(1))
    with pytest.raises(ceiba.Timeout) as caught:
        always()
    assert isinstance(caught.value, TimeoutError)


def test_attempts_that_no_thread_began_are_not_kept() -> None:
    let_go = threading.Event()
    begun: list[object] = []

    class Payload:
        pass

    @ceiba.strategy(retry=2, timeout=0.05, threads=1)
    def stuck(payload: Payload) -> None:
        begun.append(1)
        let_go.wait(30)

    first = Payload()
    with pytest.raises(ceiba.Timeout):
        stuck(first)
    kept = []
    for _ in range(3):
        payload = Payload()
        kept.append(weakref.ref(payload))
        with pytest.raises(ceiba.Timeout):
            stuck(payload)
        del payload
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3
    assert len(begun) == 1
    let_go.set()


def test_a_deadline_bounds_attempts_and_waits() -> None:
    retry = {"max_attempts": 100, "backoff": {"type": "fixed", "wait": "100ms"}}
    flaky = Flaky(1000)
    start = time.monotonic()
    with pytest.raises(OSError):
        ceiba.strategy(retry=retry, deadline=0.35)(flaky)()
    assert time.monotonic() - start < 5
    assert 2 <= flaky.calls <= 4
    with pytest.raises(ceiba.Timeout):
        ceiba.strategy(retry=2, deadline=0.1)(lambda: time.sleep(2))()


def test_a_rate_limit_refuses_and_a_retry_waits_for_it(where: dict[str, Any]) -> None:
    limited = ceiba.strategy(rate_limit="2/300ms", **where)(lambda: 1)
    assert [limited(), limited()] == [1, 1]
    with pytest.raises(ceiba.Limited) as caught:
        limited()
    assert caught.value.retry_after is not None and 0 < caught.value.retry_after <= 0.3
    waits = ceiba.strategy(retry=3, rate_limit="1/200ms", **where)(lambda: time.monotonic())
    first, second, third = waits(), waits(), waits()
    assert second - first >= 0.19 and third - second >= 0.19


def test_a_circuit_breaker_stands_outside_the_retry(where: dict[str, Any]) -> None:
    flaky = Flaky(4)
    guarded = ceiba.strategy(
        retry=2, circuit_breaker={"consecutive": 2, "open_for": "200ms"}, id="guarded", **where
    )(flaky)
    for _ in range(2):
        with pytest.raises(OSError):
            guarded()
    assert flaky.calls == 4
    with pytest.raises(ceiba.CircuitOpen):
        guarded()
    assert flaky.calls == 4
    stack = ceiba.producer_status("guarded")["strategies"]
    kinds = [one["type"] for one in stack]
    assert kinds == ["circuit_breaker", "retry"] + (["timeout"] if where else [])
    assert stack[0]["state"] == "open"
    time.sleep(0.25)
    assert guarded(5) == ((5,), {})
    assert ceiba.producer_status("guarded")["strategies"][0]["state"] == "closed"
    ceiba.producer_control("guarded", {"strategy": "circuit_breaker", "state": "open"})
    with pytest.raises(ceiba.CircuitOpen):
        guarded()


def test_a_refusal_names_what_was_raised_before(where: dict[str, Any]) -> None:
    flaky = Flaky(9)
    inner = [{"type": "retry", "max_attempts": 3, "retry_on": "any"}, {"type": "circuit_breaker", "consecutive": 1}]
    inner += [{"type": "timeout", "after": "20s"}] if where else []
    # The breaker's wait of 30 s would pass the deadline, so the retry ends with the refusal.
    guarded = ceiba.strategy(strategies=inner, deadline=5)(flaky)
    with pytest.raises(ceiba.CircuitOpen) as caught:
        guarded()
    assert flaky.calls == 1
    assert isinstance(caught.value.__cause__, OSError)


def test_where_it_runs() -> None:
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")
    seen.set("the caller's")

    def where() -> tuple[str, bool]:
        return seen.get(), threading.current_thread() is threading.main_thread()

    assert ceiba.strategy(retry=2)(where)() == ("the caller's", True)
    assert ceiba.strategy(timeout=9)(where)() == ("the caller's", False)


def test_functions_within_functions(where: dict[str, Any]) -> None:
    @ceiba.strategy(retry=2, **where)
    def deep(level: int) -> int:
        return level if level == 0 else deep(level - 1) + 1

    assert deep(5) == 5


def test_threads_call_it_at_once(where: dict[str, Any]) -> None:
    lock = threading.Lock()
    calls: dict[int, int] = {}

    @ceiba.strategy(retry=3, threads=4, **where)
    def send(number: int) -> int:
        with lock:
            calls[number] = calls.get(number, 0) + 1
            again = calls[number] < 3
        if again:
            raise OSError
        return number

    results: list[int] = []

    def work(start: int) -> None:
        for number in range(start, start + 50):
            results.append(send(number))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == list(range(400))
    assert set(calls.values()) == {3}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, TypeError),
        ({"retry": 0}, ceiba.InvalidConfig),
        ({"retry": "3"}, TypeError),
        ({"retry": True}, TypeError),
        ({"retry": {"max_attempt": 3}}, ceiba.InvalidConfig),
        ({"timeout": 0}, ValueError),
        ({"timeout": "soon"}, ceiba.InvalidConfig),
        ({"timeout": None, "rate_limit": "fast"}, ValueError),
        ({"rate_limit": "5/era"}, ceiba.InvalidConfig),
        ({"rate_limit": 5}, TypeError),
        ({"circuit_breaker": {}}, ceiba.InvalidConfig),
        ({"retry": 2, "strategies": [{"type": "retry", "max_attempts": 2}]}, TypeError),
        ({"strategies": []}, TypeError),
        ({"strategies": [{"type": "retri"}]}, ceiba.InvalidConfig),
        ({"strategies": [{"type": "failover", "members": ["other"]}]}, ceiba.InvalidConfig),
        ({"retry": 2, "retry_on": 5}, TypeError),
        ({"retry": 2, "retry_on": int}, TypeError),
        ({"retry": 2, "threads": 0}, ValueError),
        ({"retry": 2, "deadline": -1}, ceiba.InvalidArgument),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ceiba.strategy(**options)(lambda: None)


def test_what_cannot_be_decorated() -> None:
    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        ceiba.strategy(retry=2)(generator)
    with pytest.raises(TypeError, match="function"):
        ceiba.strategy(retry=2)(5)  # type: ignore[arg-type]


def test_ids_are_its_own() -> None:
    with pytest.raises(ceiba.UnknownId):
        ceiba.producer_status(f"{__name__}.test_ids_are_its_own.<locals>.one")

    def one() -> int:
        return 1

    first, second = ceiba.strategy(retry=2)(one), ceiba.strategy(retry=2)(one)
    first(), second()
    name = f"{__name__}.test_ids_are_its_own.<locals>.one"
    assert ceiba.producer_status(name)["sent"] == ceiba.producer_status(f"{name}-2")["sent"] == 1
    with pytest.raises(ceiba.InvalidArgument, match="decorated function"):
        ceiba.producer_send(name, b"x")
    ceiba.producer_open("memory://other", "taken")
    with pytest.raises(ceiba.AlreadyOpen, match="taken"):
        ceiba.strategy(retry=2, id="taken")(one)()


def test_a_shutdown_ends_nothing_for_good(where: dict[str, Any]) -> None:
    send = ceiba.strategy(retry=2, **where)(lambda: 1)
    assert send() == 1
    assert ceiba.shutdown(5)["failed"] == 0
    assert send() == 1


def test_it_closes_with_its_function(where: dict[str, Any]) -> None:
    send = ceiba.strategy(retry=2, id="gone", **where)(lambda: 1)
    send()
    assert ceiba.producer_status("gone")["state"] == "open"
    del send
    gc.collect()

    def closed() -> bool:
        try:
            ceiba.producer_status("gone")
        except (ceiba.UnknownId, ceiba.Closed):
            return True
        return False

    eventually(closed)


def test_children_of_forks_use_it(where: dict[str, Any]) -> None:
    send = ceiba.strategy(retry=2, **where)(os.getpid)
    assert send() == os.getpid()

    @ceiba.strategy(retry=2)
    def forks() -> int:
        return os.fork()

    child = forks()
    if child == 0:
        os._exit(0 if send() == os.getpid() and Flaky(0) is not None else 1)
    assert wait_for(child) == 0
    assert send() == os.getpid()


def test_nothing_of_a_call_is_kept(where: dict[str, Any]) -> None:
    class Thing:
        pass

    def count() -> int:
        gc.collect()
        return sum(isinstance(each, Thing) for each in gc.get_objects())

    @ceiba.strategy(retry=2, **where)
    def send(thing: Thing) -> Thing:
        if len(seen) % 2 == 0:
            seen.append(1)
            raise OSError
        seen.append(1)
        return thing

    seen: list[int] = []
    for _ in range(20):
        send(Thing())
    eventually(lambda: count() == 0)


def test_ctrl_c_ends_a_wait_of_a_decorated_function(program: Callable[..., Program]) -> None:
    running = program(
        """
        import time
        import ceiba
        @ceiba.strategy(retry={"max_attempts": 2, "backoff": {"type": "fixed", "wait": "60s"}})
        def send():
            print("ready")
            raise OSError
        try:
            send()
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert running.wait_for_line() == "ready"
    time.sleep(0.3)
    running.interrupt()
    assert running.end() == (0, "interrupted\n", "")


@pytest.mark.parametrize("ending", ["stuck()", "thread(stuck)", "thread(waits)", "thread(loops)", "thread(again)"])
def test_the_interpreter_ends(program: Callable[..., Program], ending: str) -> None:
    running = program(
        f"""
        import threading, time
        import ceiba
        def thread(target):
            def quiet():
                try:
                    target()
                except Exception:
                    pass
            threading.Thread(target=quiet, daemon=True).start()
            time.sleep(0.2)
        limited = ceiba.strategy(timeout=0.2)(lambda: time.sleep(60))
        def stuck():
            try:
                limited()
            except ceiba.Timeout:
                pass
        inside = ceiba.strategy(retry=2)(lambda: time.sleep(60))
        waits = lambda: inside()
        quick = ceiba.strategy(timeout=5)(lambda: None)
        loops = lambda: [quick() for _ in iter(int, 1)]
        def fails():
            raise OSError
        again = ceiba.strategy(retry={{"max_attempts": 2, "backoff": {{"type": "fixed", "wait": "60s"}}}})(fails)
        print("ready")
        {ending}
        """
    )
    assert running.wait_for_line() == "ready"
    start = time.monotonic()
    assert running.end() == (0, "", "")
    assert time.monotonic() - start < 12
