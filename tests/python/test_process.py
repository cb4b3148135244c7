"""The process around the calls: signals, threads, forks, its end."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sms_sdk

import ceiba
from conftest import Program, eventually

Start = Callable[..., Program]

WAITS = {
    "receive": 'ceiba.consumer_receive("c", 1, 60)',
    "receive in a class": "consumer.receive(1, 60)",
    "iteration": "next(consumer)",
    "send": 'ceiba.producer_send("stuck", b"x")',
    "flush": 'ceiba.producer_submit("stuck", b"x"); ceiba.producer_flush("stuck")',
    "close": 'ceiba.producer_submit("stuck", b"x"); ceiba.producer_close("stuck")',
    "completions": "ceiba.completions(timeout=None)",
    "open": 'ceiba.producer_open({**nowhere, "connect": "eager", "connect_timeout": "60s"}, "again")',
}


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_ends_a_wait(program: Start, wait: str) -> None:
    running = program(
        f"""
        import time
        import ceiba
        nowhere = {{"provider": {{"type": "kapokmq", "url": "ws://127.0.0.1:9", "topic": "t", "secret_key": "s"}},
                   "connect": "lazy"}}
        ceiba.producer_open(nowhere, "stuck")
        consumer = ceiba.Consumer("memory://t", "c")
        start = time.monotonic()
        try:
            print("ready")
            {WAITS[wait]}
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - start < 30)
        # What comes after works.
        ceiba.producer_open("memory://t", "p")
        ceiba.producer_send("p", b"x")
        print(consumer.receive(1, 5)[0].data)
        ceiba.shutdown(0)
        """
    )
    assert running.wait_for_line() == "ready"
    time.sleep(0.3)
    running.interrupt()
    code, out, error = running.end()
    assert (code, out, error) == (0, "interrupted True\nb'x'\n", "")


def test_ctrl_c_ends_a_loop_over_a_consumer(program: Start) -> None:
    running = program(
        """
        import ceiba
        with ceiba.Consumer("memory://t") as consumer:
            print("ready")
            for delivery in consumer:
                pass
        """
    )
    assert running.wait_for_line() == "ready"
    time.sleep(0.3)
    running.interrupt()
    code, _, error = running.end()
    assert code != 0
    assert error.strip().endswith("KeyboardInterrupt")


def test_a_signal_handler_runs_during_a_wait(program: Start) -> None:
    running = program(
        """
        import signal, time
        import ceiba
        signal.signal(signal.SIGINT, lambda *_: print("handled", ceiba.producer_send("p", b"x").provider))
        ceiba.producer_open("memory://t", "p")
        ceiba.consumer_open("memory://t", "c")
        print("ready")
        print(ceiba.consumer_receive("c", 1, 20)[0].data)
        """
    )
    assert running.wait_for_line() == "ready"
    time.sleep(0.3)
    running.interrupt()
    assert running.end() == (0, "handled memory\nb'x'\n", "")


@pytest.mark.parametrize("what", ["receive", "completions", "send", "open"])
def test_other_threads_go_on_while_one_waits(topic: str, unreachable: dict[str, object], what: str) -> None:
    ceiba.consumer_open(f"memory://{topic}", "c")
    ceiba.producer_open(unreachable, "p")
    waiting = {
        "receive": lambda: ceiba.consumer_receive("c", 1, 1),
        "completions": lambda: ceiba.completions(timeout=1),
        "send": lambda: pytest.raises(ceiba.Timeout, ceiba.producer_send, "p", b"x", timeout=1),
        "open": lambda: pytest.raises(
            ceiba.Unavailable,
            ceiba.producer_open,
            {**unreachable, "connect": "eager", "connect_timeout": "1s"},
            "q",
        ),
    }[what]
    count = 0
    stop = threading.Event()

    def work() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    start, before = time.monotonic(), count
    waiting()
    waited, after = time.monotonic() - start, count
    stop.set()
    thread.join()
    assert waited >= 0.9
    # A thousand at most; with the lock held it would be one or two.
    assert after - before > 50


def test_fork(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    ceiba.consumer_open(f"memory://{topic}", "c")
    ceiba.producer_send("p", b"before")
    token = ceiba.producer_submit("p", b"of the parent")
    ceiba.producer_flush("p")
    child = os.fork()
    if child == 0:
        os._exit(in_the_child(topic))
    assert wait_for(child) == 0
    # The parent goes on as before.
    assert [one.token for one in ceiba.completions(timeout=5)] == [token]
    ceiba.producer_send("p", b"after")
    assert [d.data for d in ceiba.consumer_receive("c", 10)] == [b"before", b"of the parent", b"after"]


def in_the_child(topic: str) -> int:
    try:
        for call in (
            lambda: ceiba.producer_send("p", b"x"),
            lambda: ceiba.producer_submit("p", b"x"),
            lambda: ceiba.producer_submit_many("p", [b"x"]),
            lambda: ceiba.producer_flush("p"),
            lambda: ceiba.producer_status("p"),
            lambda: ceiba.producer_close("p"),
            lambda: ceiba.consumer_receive("c", 1, 0),
            lambda: ceiba.consumer_ack("c", "x"),
            lambda: ceiba.consumer_close("c"),
        ):
            try:
                call()
            except ceiba.Forked as error:
                assert error.code == 24
            else:
                return 2
        try:
            ceiba.producer_send("never opened", b"x")
        except ceiba.UnknownId:
            pass
        # Completions of the parent are not the child's.
        if ceiba.completions() != []:
            return 3
        # The child opens its own, also under the same id, and forks on.
        ceiba.producer_open(f"memory://{topic}", "p")
        ceiba.consumer_open(f"memory://{topic}", "c")
        ceiba.producer_send("p", b"of the child")
        token = ceiba.producer_submit("p", b"too")
        if [one.token for one in ceiba.completions(timeout=5)] != [token]:
            return 4
        if [d.data for d in ceiba.consumer_receive("c", 10)] != [b"of the child", b"too"]:
            return 5
        grandchild = os.fork()
        if grandchild == 0:
            try:
                ceiba.producer_send("p", b"x")
            except ceiba.Forked:
                ceiba.producer_open(f"memory://{topic}", "p")
                ceiba.producer_send("p", b"x")
                os._exit(0)
            os._exit(6)
        return wait_for(grandchild)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1


def wait_for(child: int, seconds: float = 20) -> int:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_forks_while_threads_send(topic: str) -> None:
    ceiba.producer_open({"provider": {"type": "memory", "topic": topic, "discard": True}}, "p")
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            ceiba.producer_send("p", b"x")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                try:
                    ceiba.producer_open(f"memory://{topic}", "p")
                    ceiba.producer_send("p", b"x")
                    os._exit(0)
                finally:
                    os._exit(1)
            assert wait_for(child) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def test_a_block_that_forks_closes_in_the_parent_alone(program: Start) -> None:
    code, out, error = program(
        """
        import os
        import ceiba
        with ceiba.Broker() as broker, ceiba.Producer(broker.url("t")) as p, ceiba.Consumer(broker.url("t")) as c:
            child = os.fork()
            if child:
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                p.send("x")
                print(c.receive(1, 10)[0].data)
        """
    ).end()
    assert (code, out, error) == (0, "0\nb'x'\n", "")


@pytest.fixture
def redis(tmp_path: pathlib.Path) -> Iterator[int]:
    """The port of a redis-server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as server:

        def answers() -> bool:
            try:
                return ask(port, "PING") == "+PONG"
            except OSError:
                return False

        eventually(answers)
        yield port
        server.kill()


def ask(port: int, command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.makefile().readline().strip()


def test_forked_workers_draw_nothing_that_others_draw(topic: str, redis: int) -> None:
    """As under `gunicorn --preload`: the parent has sent, and each worker opens clients of its own."""
    limit = {
        "type": "rate_limit", "limiter": "sliding_window", "rate": 100, "per": "1h", "key": "forked",
        "url": f"redis://127.0.0.1:{redis}", "store_timeout": "5s",
    }
    service = {
        "type": "sms", "service": "aliyun", "access_key_id": "id", "access_key_secret": "secret", "sign": "s",
    }

    def work(endpoint: str) -> None:
        ceiba.producer_open({"provider": {"type": "memory", "topic": topic}, "strategies": [limit]}, f"{os.getpid()}")
        ceiba.producer_open({"provider": {**service, "endpoint": endpoint}}, f"{os.getpid()}-sms")
        for _ in range(3):
            ceiba.producer_send(f"{os.getpid()}", b"x", timeout=10)
            ceiba.producer_send(f"{os.getpid()}-sms", b"", template="t", recipients=["13800000000"], timeout=10)

    with sms_sdk.Endpoint(sms_sdk.ALIYUN_ANSWER) as endpoint:
        work(endpoint.url)
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                try:
                    work(endpoint.url)
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        assert [wait_for(child) for child in children] == [0, 0, 0]
    nonces = {request["headers"]["x-acs-signature-nonce"] for request in endpoint.requests}
    # A grant counts once for each name, and each has one of its own.
    assert (ask(redis, "ZCARD ceiba:limit:key:forked:sliding_window/2:100:3600000000us"), len(nonces)) == (":12", 12)


def test_multiprocessing(program: Start) -> None:
    code, out, error = program(
        """
        import multiprocessing
        import ceiba

        def work(url):
            with ceiba.Producer(url) as producer:
                try:
                    ceiba.producer_send("of the parent", b"x")
                except ceiba.Error as failed:
                    error = failed
                return producer.send("x").provider, error

        ceiba.producer_open("memory://t", "of the parent")
        with ceiba.Broker() as broker:
            with multiprocessing.get_context("fork").Pool(2) as pool:
                for provider, error in pool.map(work, [broker.url("t")] * 4):
                    print(provider, error.kind)
            print(broker.status()["accepted"])
        """
    ).end()
    assert (code, out, error) == (0, "kapokmq forked\n" * 4 + "4\n", "")


ENDINGS = {
    "clients left open": "",
    "submits under way": 'ceiba.producer_submit_many("stuck", [b"x"] * 100)',
    "completions not taken": 'ceiba.producer_submit_many("p", [b"x"] * 100)',
    "a thread that receives": 'thread(lambda: ceiba.consumer_receive("c", 1, 60))',
    "a thread that waits for completions": "thread(lambda: ceiba.completions(timeout=None))",
    "a thread that sends": 'thread(lambda: ceiba.producer_send("stuck", b"x"))',
    "threads that send without end": 'thread(lambda: [ceiba.producer_send("p", b"x") for _ in iter(int, 1)])',
    "a running broker": "broker = ceiba.Broker(); producer = ceiba.Producer(broker.url('t'))",
    # The warning of the connection that fails goes to the handler, not to stderr, should it come before the end.
    "logging": "import logging; logging.getLogger('ceiba').addHandler(logging.NullHandler()); "
    "ceiba.enable_logging('DEBUG')",
    "an exception": "raise SystemExit(0)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends(program: Start, ending: str) -> None:
    running = program(
        f"""
        import threading, time
        import ceiba
        def thread(target):
            def quiet():
                try:
                    target()
                except ceiba.Error:
                    pass
            threading.Thread(target=quiet, daemon=True).start()
            time.sleep(0.2)
        ceiba.producer_open({{"provider": {{"type": "kapokmq", "url": "ws://127.0.0.1:9", "topic": "t",
                             "secret_key": "s"}}, "connect": "lazy"}}, "stuck")
        ceiba.producer_open("memory://t", "p")
        ceiba.consumer_open("memory://t", "c")
        print("ready")
        {ENDINGS[ending]}
        """
    )
    assert running.wait_for_line() == "ready"
    start = time.monotonic()
    assert running.end() == (0, "", "")
    # The bound for sends under way, and some for a busy machine.
    assert time.monotonic() - start < 10


def test_import_is_light(program: Start) -> None:
    code, out, error = program(
        """
        import sys
        before = set(sys.modules)
        import ceiba
        heavy = {"asyncio", "logging", "json", "typing", "threading", "datetime", "pytest"}
        print(sorted(heavy & (set(sys.modules) - before)), threading_count())
        """.replace("threading_count()", "len(__import__('os').listdir('/proc/self/task'))")
    ).end()
    # No thread is started either.
    assert (code, out, error) == (0, "[] 1\n", "")


def test_workers_are_set_before_the_first_open(program: Start) -> None:
    code, out, error = program(
        """
        import os
        import ceiba
        ceiba.set_workers(3)
        ceiba.producer_open("memory://t", "p")
        # And the main thread.
        print(len(os.listdir("/proc/self/task")))
        try:
            ceiba.set_workers(4)
        except ceiba.InvalidArgument:
            print("too late")
        """
    ).end()
    assert (code, out, error) == (0, "4\ntoo late\n", "")


def test_shutdown_reports_and_leaves_all_usable(topic: str, unreachable: dict[str, object]) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    ceiba.consumer_open(f"memory://{topic}", "c")
    ceiba.producer_open(unreachable, "stuck")
    ceiba.producer_submit("stuck", b"x")
    assert ceiba.shutdown(1) == {"clean": 2, "forced": 1, "failed": 0}
    assert [one.ok for one in ceiba.completions(timeout=5)] == [False]
    assert ceiba.shutdown() == {"clean": 0, "forced": 0, "failed": 0}
    ceiba.producer_open(f"memory://{topic}", "p")
    ceiba.producer_send("p", b"x")
