"""Producers of the host: a callable or a coroutine function behind an id."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ceiba
from conftest import Program, eventually
from test_process import wait_for

Start = Callable[..., Program]


@pytest.fixture
def host(topic: str) -> Iterator[Callable[..., str]]:
    """Registers a sender and opens a producer `p` over it, with strategies where they are given."""
    names: list[str] = []

    def register(sender: Callable[[ceiba.Message], Any], *strategies: dict[str, Any], id: str = "p", **provider: Any) -> str:
        loop = provider.pop("loop", None)
        name = f"{topic}-{len(names)}"
        ceiba.register_host(name, sender, loop=loop)
        names.append(name)
        config = {"provider": {"type": "callback", "name": name, **provider}, "strategies": list(strategies)}
        return ceiba.producer_open(config, id)

    yield register
    for name in names:
        ceiba.unregister_host(name)


def test_a_callable_gets_the_message_and_names_its_id(host: Callable[..., str]) -> None:
    seen: list[ceiba.Message] = []

    def sender(message: ceiba.Message) -> int:
        seen.append(message)
        return 17

    host(sender)
    fields: dict[str, Any] = {
        "template": "login",
        "args": {"code": "1234", "minutes": [5, None, 1.5]},
        "recipients": ["+8613800000000", "b@example.com"],
        "content_type": "text/plain",
        "attributes": {"sign": "ceiba"},
        "attachments": [("a.txt", "text/plain", b"inside")],
    }
    receipt = ceiba.producer_send("p", b"\x00body", 1.5, **fields)
    assert (receipt.message_id, receipt.provider, receipt.attempts) == ("17", "callback", 1)
    assert receipt.parts == ()
    (message,) = seen
    assert (message.data, message.fields) == (b"\x00body", fields)
    # What is left of it.
    assert 0.5 < message.delay <= 1.5
    # A Message carries them as well.
    ceiba.producer_send("p", ceiba.Message("two", template="t", args=["x"], recipients=("r",)))
    assert seen[1].fields == {"template": "t", "args": ["x"], "recipients": ["r"]}


def test_none_is_no_id_and_a_receipt_gives_its_own(host: Callable[..., str]) -> None:
    host(lambda message: None)
    assert ceiba.producer_send("p", b"x").message_id is None
    host(lambda message: "abc", id="inner")
    host(lambda message: ceiba.producer_send("inner", message), id="outer")
    assert ceiba.producer_send("outer", b"x").message_id == "abc"


def test_a_coroutine_function_is_awaited(host: Callable[..., str]) -> None:
    async def sender(message: ceiba.Message) -> str:
        await asyncio.sleep(0.01)
        return f"{threading.current_thread().name} {message.data.decode()}"

    host(sender)
    assert ceiba.producer_send("p", b"x").message_id == "ceiba-host-loop x"
    # All at once, though there are fewer threads: a coroutine holds none.
    start = time.monotonic()
    host(lambda message: asyncio.sleep(0.3, "slept"), id="many", threads=64)
    results = ceiba.producer_send_batch("many", [b"x"] * 64)
    assert [one.message_id for one in results if isinstance(one, ceiba.Receipt)] == ["slept"] * 64
    assert time.monotonic() - start < 10


def test_a_coroutine_runs_in_the_loop_that_is_named(host: Callable[..., str]) -> None:
    async def main() -> tuple[str | None, bool]:
        own = asyncio.get_running_loop()
        same: list[bool] = []

        async def sender(message: ceiba.Message) -> str:
            same.append(asyncio.get_running_loop() is own)
            return "in it"

        host(sender, loop=own)
        receipt = await asyncio.to_thread(ceiba.producer_send, "p", b"x")
        return receipt.message_id, same[0]

    assert asyncio.run(main()) == ("in it", True)
    # The loop is closed now.
    with pytest.raises(ceiba.Unavailable, match="RuntimeError"):
        ceiba.producer_send("p", b"x")


@pytest.mark.parametrize("kind", ["callable", "coroutine"])
def test_an_exception_is_an_error_of_that_attempt(host: Callable[..., str], kind: str) -> None:
    raised: list[BaseException] = [
        ValueError("wrong number"),
        TimeoutError("too slow"),
        SystemExit(3),
        KeyboardInterrupt(),
        ceiba.Throttled("slow down", "not_sent", True, 0.25),
        ceiba.InvalidArgument("no such number"),
    ]

    def sender(message: ceiba.Message) -> str:
        if raised:
            raise raised.pop(0)
        return "sent"

    async def coroutine(message: ceiba.Message) -> str:
        return sender(message)

    host(sender if kind == "callable" else coroutine)
    seen = []
    for _ in range(6):
        with pytest.raises(ceiba.Error) as caught:
            ceiba.producer_send("p", b"x")
        error = caught.value
        assert (error.provider, error.attempts) == ("callback", 1)
        seen.append((error.kind, error.outcome, error.retryable, error.retry_after, str(error)))
    assert seen == [
        ("unavailable", "unknown", True, None, "ValueError: wrong number"),
        ("timeout", "unknown", True, None, "TimeoutError: too slow"),
        ("unavailable", "unknown", True, None, "SystemExit: 3"),
        ("unavailable", "unknown", True, None, "KeyboardInterrupt"),
        ("throttled", "not_sent", True, 0.25, "slow down"),
        ("invalid_argument", "not_sent", False, None, "no such number"),
    ]
    assert ceiba.producer_send("p", b"x").message_id == "sent"
    status = ceiba.producer_status("p")
    assert (status["sent"], status["failed"], status["running"]) == (1, 6, 0)


def test_a_retry_stands_around_it_and_its_error_has_every_attempt(host: Callable[..., str]) -> None:
    numbers = iter(range(1, 9))

    def sender(message: ceiba.Message) -> None:
        raise ConnectionResetError(f"attempt {next(numbers)}")

    host(sender, {"type": "retry", "max_attempts": 3})
    with pytest.raises(ceiba.Unavailable) as caught:
        ceiba.producer_send("p", b"x")
    error = caught.value
    assert error.attempts == 3
    assert [(part.of, part.name, part.ok) for part in error.parts] == [("attempt", str(n), False) for n in (1, 2, 3)]
    assert [str(part.error) for part in error.parts] == [f"ConnectionResetError: attempt {n}" for n in (1, 2, 3)]
    told = error.details
    assert (told["kind"], told["code"], told["outcome"], told["attempts"]) == ("unavailable", 14, "unknown", 3)
    assert [part["error"]["kind"] for part in told["parts"]] == ["unavailable"] * 3
    (token,) = ceiba.producer_submit_many("p", [b"x"])
    (done,) = ceiba.completions(timeout=10)
    assert done.token == token and done.error is not None and len(done.error.parts) == 3


def test_a_partial_failure_is_tried_again_for_the_failed_ones_only(host: Callable[..., str]) -> None:
    calls: list[list[str]] = []

    def sender(message: ceiba.Message) -> None:
        calls.append(message.fields["recipients"])
        failed = [name for name in calls[-1] if name.startswith("bad") and len(calls) < 3]
        if failed:
            parts = [ceiba.Part("recipient", name, message_id=f"id-{name}") for name in calls[-1] if name not in failed]
            parts += [ceiba.Part("recipient", name, error=ceiba.Throttled("slow", retryable=True)) for name in failed]
            raise ceiba.Partial("some failed", retryable=True, parts=parts)

    host(sender, {"type": "retry", "max_attempts": 3})
    receipt = ceiba.producer_send("p", b"x", recipients=["a", "bad", "b"])
    assert calls == [["a", "bad", "b"], ["bad"], ["bad"]]
    assert receipt.attempts == 3
    ended = {part.name: (part.of, part.ok, part.message_id) for part in receipt.parts}
    assert ended == {"a": ("recipient", True, "id-a"), "b": ("recipient", True, "id-b"), "bad": ("recipient", True, None)}


def test_members_are_told_in_an_error(host: Callable[..., str]) -> None:
    def down(message: ceiba.Message) -> None:
        raise ConnectionError("down")

    host(down, id="one")
    host(down, id="two")
    ceiba.producer_open({"strategies": [{"type": "failover", "members": ["one", "two"]}]}, "both")
    with pytest.raises(ceiba.AllFailed) as caught:
        ceiba.producer_send("both", b"x")
    assert [(part.of, part.name) for part in caught.value.parts] == [("member", "one"), ("member", "two")]
    with pytest.raises(ceiba.InUse, match="both"):
        ceiba.producer_close("one")


def test_status_and_control_show_and_set_the_stack(host: Callable[..., str]) -> None:
    host(
        lambda message: None,
        {"type": "circuit_breaker", "consecutive": 2},
        {"type": "retry", "name": "again", "max_attempts": 2},
        {"type": "timeout", "after": "2s"},
    )
    stack = ceiba.producer_status("p")["strategies"]
    assert [(one["type"], one.get("name")) for one in stack] == [
        ("circuit_breaker", None),
        ("retry", "again"),
        ("timeout", None),
    ]
    assert stack[0]["state"] == "closed" and stack[2]["after_ms"] == 2000
    assert ceiba.producer_control("p", {"strategy": "circuit_breaker", "state": "open"}) == {"state": "forced_open"}
    with pytest.raises(ceiba.CircuitOpen):
        ceiba.producer_send("p", b"x")
    assert ceiba.producer_status("p")["strategies"][0]["refused"] == 1
    ceiba.producer_control("p", {"strategy": "circuit_breaker", "state": "auto"})
    ceiba.producer_send("p", b"x")
    for wrong, kind in (
        ({"state": "open"}, ceiba.InvalidArgument),
        ({"strategy": "circuit_breaker", "state": "ajar"}, ceiba.InvalidArgument),
        ({"strategy": "again"}, ceiba.Unsupported),
        ({"strategy": object()}, ceiba.InvalidArgument),
    ):
        with pytest.raises(kind):
            ceiba.producer_control("p", wrong)


def test_control_of_a_class_moves_a_failover(topic: str) -> None:
    members = [{"id": name, "provider": {"type": "memory", "topic": f"{topic}-{name}"}} for name in ("a", "b")]
    with ceiba.Producer({"strategies": [{"type": "failover", "members": members}]}) as producer:
        producer.control({"strategy": "failover", "current": "b"})
        producer.send(b"x")
        assert producer.status()["strategies"][0]["current"] in ("b", 1)
        assert len(ceiba.Consumer(f"memory://{topic}-b").receive(1, 5)) == 1


def test_one_that_never_returns_is_bounded_by_the_timeout(host: Callable[..., str]) -> None:
    let_go = threading.Event()
    host(lambda message: let_go.wait(30), {"type": "timeout", "after": "100ms"}, threads=1)
    start = time.monotonic()
    with pytest.raises(ceiba.Timeout) as caught:
        ceiba.producer_send("p", b"x")
    assert (caught.value.outcome, time.monotonic() - start < 5) == ("unknown", True)
    # Its thread is taken, and there is one only.
    with pytest.raises(ceiba.QueueFull) as full:
        ceiba.producer_send("p", b"x")
    assert full.value.outcome == "not_sent"
    assert ceiba.producer_status("p")["running"] == 1
    let_go.set()
    eventually(lambda: ceiba.producer_status("p")["running"] == 0)
    ceiba.producer_send("p", b"x")


def test_a_coroutine_is_cancelled_at_the_timeout(host: Callable[..., str]) -> None:
    ended: list[str] = []

    async def sender(message: ceiba.Message) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    host(sender, {"type": "timeout", "after": "100ms"})
    with pytest.raises(ceiba.Timeout):
        ceiba.producer_send("p", b"x")
    eventually(lambda: ended == ["cancelled"])
    eventually(lambda: ceiba.producer_status("p")["running"] == 0)


def test_close_while_one_is_inside(host: Callable[..., str]) -> None:
    inside, let_go = threading.Event(), threading.Event()

    def sender(message: ceiba.Message) -> str:
        inside.set()
        let_go.wait(30)
        return "late"

    host(sender)
    ended: list[object] = []

    def send() -> None:
        try:
            ended.append(ceiba.producer_send("p", b"x"))
        except ceiba.Error as error:
            ended.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    assert inside.wait(10)
    start = time.monotonic()
    with pytest.raises(ceiba.Timeout):
        ceiba.producer_close("p", timeout=0.2)
    assert time.monotonic() - start < 5
    thread.join(10)
    (error,) = ended
    assert isinstance(error, ceiba.Closed) and error.outcome == "unknown"
    # The id is taken as long as the callable is stuck.
    with pytest.raises(ceiba.Closed):
        ceiba.producer_send("p", b"x")
    let_go.set()

    def gone() -> bool:
        try:
            ceiba.producer_send("p", b"x")
        except ceiba.Error as error:
            return isinstance(error, ceiba.UnknownId)
        return False

    eventually(gone)
    # One that returns in time is waited for.
    inside.clear()
    let_go.clear()
    host(sender, id="q")
    (token,) = ceiba.producer_submit_many("q", [b"x"])
    assert inside.wait(10)
    threading.Timer(0.2, let_go.set).start()
    ceiba.producer_close("q", timeout=10)
    (done,) = ceiba.completions(timeout=5)
    assert done.token == token and done.result().message_id == "late"


@pytest.mark.parametrize("kind", ["callable", "coroutine"])
def test_other_threads_go_on_while_a_send_waits_for_its_sender(host: Callable[..., str], kind: str) -> None:
    async def coroutine(message: ceiba.Message) -> None:
        await asyncio.sleep(0.5)

    host(coroutine if kind == "coroutine" else lambda message: time.sleep(0.5))
    count = 0
    stop = threading.Event()

    def work() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    before = count
    ceiba.producer_send("p", b"x")
    after = count
    stop.set()
    thread.join()
    # 500 at most; with the lock held it would be one or two.
    assert after - before > 25


def test_many_threads_send_through_few(host: Callable[..., str]) -> None:
    most = running = 0
    lock = threading.Lock()

    def sender(message: ceiba.Message) -> str:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1
        return message.data.decode()

    host(sender, threads=4)
    seen: list[str | None] = []

    def send(number: int) -> None:
        for n in range(25):
            seen.append(ceiba.producer_send("p", f"{number}-{n}").message_id)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(str, seen)) == sorted(f"{number}-{n}" for number in range(8) for n in range(25))
    assert 1 < most <= 4


def test_its_threads_end_with_its_registration(topic: str) -> None:
    def threads() -> int:
        return sum(thread.name == f"ceiba-host-{topic}" for thread in threading.enumerate())

    ceiba.register_host(topic, lambda message: None)
    ceiba.producer_open({"provider": {"type": "callback", "name": topic}}, "p")
    ceiba.producer_send("p", b"x")
    assert threads() >= 1
    ceiba.unregister_host(topic)
    # The producer goes on with it until it is closed.
    ceiba.producer_send("p", b"x")
    ceiba.producer_close("p")
    eventually(lambda: threads() == 0)


def test_names_are_checked(topic: str) -> None:
    with pytest.raises(TypeError, match="callable"):
        ceiba.register_host(topic, "no callable")  # type: ignore[arg-type]
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.register_host("", print)
    with pytest.raises(ceiba.UnknownId):
        ceiba.unregister_host(topic)
    with pytest.raises(ceiba.InvalidConfig, match=topic):
        ceiba.producer_open({"provider": {"type": "callback", "name": topic}}, "p")
    ceiba.register_host(topic, print)
    with pytest.raises(ceiba.AlreadyOpen):
        ceiba.register_host(topic, print)
    ceiba.unregister_host(topic)


def test_a_child_of_a_fork_registers_anew(host: Callable[..., str], topic: str) -> None:
    async def coroutine(message: ceiba.Message) -> str:
        return "of the loop"

    host(lambda message: str(os.getpid()))
    host(coroutine, id="c")
    assert ceiba.producer_send("p", b"x").message_id == str(os.getpid())
    assert ceiba.producer_send("c", b"x").message_id == "of the loop"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                ceiba.producer_send("p", b"x")
            except ceiba.Forked:
                host(lambda message: str(os.getpid()))
                host(coroutine, id="c")
                own = ceiba.producer_send("p", b"x").message_id == str(os.getpid())
                code = 0 if own and ceiba.producer_send("c", b"x").message_id == "of the loop" else 2
        finally:
            os._exit(code)
    assert wait_for(child) == 0
    assert ceiba.producer_send("p", b"x").message_id == str(os.getpid())


ENDINGS = {
    "idle": "",
    "stuck in a callable": "ceiba.producer_submit('p', b'60'); time.sleep(0.3)",
    "a callable that wakes while the program ends": "[ceiba.producer_submit('p', b'0.01') for _ in range(2000)]",
    "stuck in a coroutine": "ceiba.producer_submit('c', b'60'); time.sleep(0.3)",
    "coroutines that wake while the program ends": "[ceiba.producer_submit('c', b'0.01') for _ in range(2000)]",
    "a thread that sends": "threading.Thread(target=ceiba.producer_send, args=('p', b'60'), daemon=True).start(); "
    "threading.excepthook = lambda _: None; time.sleep(0.3)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends(program: Start, ending: str) -> None:
    running = program(
        f"""
        import asyncio, threading, time
        import ceiba
        async def coroutine(message):
            await asyncio.sleep(float(message.data))
        ceiba.register_host("plain", lambda message: time.sleep(float(message.data)))
        ceiba.register_host("coroutine", coroutine)
        ceiba.producer_open({{"provider": {{"type": "callback", "name": "plain"}}}}, "p")
        ceiba.producer_open({{"provider": {{"type": "callback", "name": "coroutine"}}}}, "c")
        ceiba.producer_send("p", "0")
        ceiba.producer_send("c", "0")
        print("ready")
        {ENDINGS[ending]}
        """
    )
    assert running.wait_for_line() == "ready"
    start = time.monotonic()
    assert running.end() == (0, "", "")
    assert time.monotonic() - start < 12


def test_what_clients_count_is_told_to_a_scraper():
    config = {"provider": {"type": "memory", "topic": "counted"}, "strategies": [{"type": "retry", "max_attempts": 2}]}
    with ceiba.Producer(config, "counted") as producer:
        producer.send("x")
        lines = ceiba.metrics().splitlines()
    assert 'ceiba_client_sent_total{id="counted",role="producer",provider="memory"} 1' in lines
    assert any(line.startswith('ceiba_strategy_retries_total{id="counted"') and line.endswith(" 0") for line in lines)
    assert "counted" not in ceiba.metrics()
