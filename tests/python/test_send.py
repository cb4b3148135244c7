"""Sends, over the memory provider."""

from __future__ import annotations

import array
import time
from datetime import timedelta

import pytest

import ceiba


@pytest.fixture
def pair(topic: str) -> tuple[str, str]:
    ceiba.producer_open({"provider": {"type": "memory", "topic": topic}}, "p")
    ceiba.consumer_open(f"memory://{topic}", "c")
    return "p", "c"


def received(count: int) -> list[bytes]:
    """So many bodies, and whatever else comes within a moment."""
    bodies: list[bytes] = []
    until = time.monotonic() + 20
    while len(bodies) < count and time.monotonic() < until:
        bodies += [delivery.data for delivery in ceiba.consumer_receive("c", 100, 1)]
    return bodies + [delivery.data for delivery in ceiba.consumer_receive("c", 100, 0.1)]


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"bytes", b"bytes"),
        (b"", b""),
        (b"\x00\xff\xfe", b"\x00\xff\xfe"),
        ("täxt", "täxt".encode()),
        (bytearray(b"array"), b"array"),
        (memoryview(b"a view of it")[2:6], b"view"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (array.array("B", [1, 2, 3]), b"\x01\x02\x03"),
        ({"b": [1, 2.5, None], "a": {"ü": True}}, '{"a":{"ü":true},"b":[1,2.5,null]}'.encode()),
    ],
)
def test_bodies_of_every_kind(pair: tuple[str, str], data: bytes, body: bytes) -> None:
    ceiba.producer_send("p", data)
    ceiba.producer_submit("p", data)
    assert list(ceiba.producer_submit_many("p", [data])) != []
    ceiba.producer_submit_message("p", data)
    ceiba.producer_flush("p")
    assert received(4) == [body] * 4


def test_a_body_of_16_mib(pair: tuple[str, str]) -> None:
    body = bytes(range(256)) * 65536
    ceiba.producer_send("p", body)
    assert received(1) == [body]


def test_a_body_is_copied_when_the_call_returns(pair: tuple[str, str]) -> None:
    body = bytearray(b"before")
    ceiba.producer_submit("p", body)
    body[:] = b"after!"
    ceiba.producer_flush("p")
    assert received(1) == [b"before"]


def test_a_receipt_says_what_happened(pair: tuple[str, str]) -> None:
    receipt = ceiba.producer_send("p", b"x")
    assert (receipt.provider, receipt.attempts, receipt.stored, receipt.warning) == ("memory", 1, False, None)
    assert isinstance(receipt.message_id, str)
    assert "memory" in repr(receipt)


@pytest.mark.parametrize("delay", [1.5, timedelta(milliseconds=1500)])
def test_a_delay_is_never_early(pair: tuple[str, str], delay: float | timedelta) -> None:
    start = time.monotonic()
    ceiba.producer_send("p", b"later", delay)
    assert ceiba.consumer_receive("c", 1, 0.1) == []
    deliveries = ceiba.consumer_receive("c", 1, 20)
    assert [delivery.data for delivery in deliveries] == [b"later"]
    assert time.monotonic() - start >= 1.5


def test_whole_seconds_of_delay(pair: tuple[str, str]) -> None:
    start = time.monotonic()
    token = ceiba.producer_submit("p", b"later", 1)
    assert [done.token for done in ceiba.completions(timeout=5)] == [token]
    assert [delivery.data for delivery in ceiba.consumer_receive("c", 1, 5)] == [b"later"]
    assert time.monotonic() - start >= 1


def test_fields_arrive(pair: tuple[str, str]) -> None:
    ceiba.producer_send("p", b"x", content_type="text/plain", key="k", tag="t", attributes={"a": "b"})
    (delivery,) = ceiba.consumer_receive("c", 1, 20)
    assert (delivery.content_type, delivery.key, delivery.tag) == ("text/plain", "k", "t")
    assert delivery.attributes == {"a": "b"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipients", ["someone@example.com"]),
        ("template", "welcome"),
        ("args", {"n": [1, 2.5, None, True, "x"]}),
        ("topic", "elsewhere"),
        ("attachments", [("a.txt", "text/plain", b"text")]),
    ],
)
def test_a_field_that_cannot_be_honoured_is_unsupported(pair: tuple[str, str], name: str, value: object) -> None:
    for call in (ceiba.producer_send, lambda *a, **k: one_completion(ceiba.producer_submit_message(*a, **k))):
        with pytest.raises(ceiba.Unsupported) as caught:
            call("p", b"x", **{name: value})  # type: ignore[operator]
        assert caught.value.outcome == "not_sent"
        assert name in str(caught.value)
    assert received(0) == []


def one_completion(token: int) -> None:
    (done,) = ceiba.completions(timeout=5)
    assert done.token == token
    done.result()


def test_a_message_object_can_be_sent_many_times(pair: tuple[str, str]) -> None:
    message = ceiba.Message(b"x", 0.05, key="k", attributes={"a": "b"})
    assert message.body == message.data == b"x"
    assert message.delay == pytest.approx(0.05)
    assert message.fields == {"key": "k", "attributes": {"a": "b"}}
    ceiba.producer_send("p", message)
    ceiba.producer_submit_message("p", message)
    assert all(isinstance(one, ceiba.Receipt) for one in ceiba.producer_send_batch("p", [message]))
    assert received(3) == [b"x"] * 3
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.producer_send("p", message, 5)


def test_a_batch_gives_a_result_for_each(pair: tuple[str, str]) -> None:
    batch = ["one", ceiba.Message(b"two", recipients=["nobody"]), b"three"]
    first, second, third = ceiba.producer_send_batch("p", batch)
    assert isinstance(first, ceiba.Receipt)
    assert isinstance(second, ceiba.Unsupported)
    assert isinstance(third, ceiba.Receipt)
    assert received(2) == [b"one", b"three"]
    assert ceiba.producer_send_batch("p", []) == []


def test_the_classes_do_the_same(topic: str) -> None:
    config = {"provider": {"type": "memory", "topic": topic}}
    with ceiba.Producer(config) as producer, ceiba.Consumer(config) as consumer:
        assert producer.id != consumer.id
        producer.send("one", key="k")
        producer.send(ceiba.Message("two"))
        producer.submit("three")
        producer.submit_many(["four", "five"])
        producer.submit_message("six", tag="t")
        producer.send_batch(["seven"])
        producer.flush()
        assert producer.status()["sent"] == 7
        assert consumer.status()["held"] == 7
        bodies = []
        for delivery in consumer:
            bodies.append(delivery.text)
            delivery.ack()
            if len(bodies) == 7:
                break
        assert bodies == ["one", "two", "three", "four", "five", "six", "seven"]
    assert producer.closed
    with pytest.raises(ceiba.UnknownId):
        producer.send("late")
    producer.close()


def test_the_configs_own_id_is_used(topic: str) -> None:
    config = {"id": "named", "provider": {"type": "memory", "topic": topic}}
    with ceiba.Producer(config) as producer:
        assert producer.id == "named"
        ceiba.producer_send("named", b"x")


def test_with_closes_after_an_exception(topic: str) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        with ceiba.Producer(f"memory://{topic}", "p"):
            raise RuntimeError("mine")
    with pytest.raises(ceiba.UnknownId):
        ceiba.producer_send("p", b"x")


def test_flush_waits_for_earlier_submits(pair: tuple[str, str]) -> None:
    tokens = ceiba.producer_submit_many("p", [b"x"] * 1000)
    ceiba.producer_flush("p", timeout=10)
    done = ceiba.completions(2000)
    assert [one.token for one in done] == list(tokens)


def test_status_is_a_dict(pair: tuple[str, str]) -> None:
    ceiba.producer_send("p", b"x")
    assert ceiba.producer_status("p")["id"] == "p"
    assert ceiba.producer_status("p")["sent"] == 1
    assert ceiba.consumer_status("c")["provider"] == "memory"
