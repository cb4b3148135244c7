"""Receiving, acknowledging and iterating, over the memory provider."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

import pytest

import ceiba


@pytest.fixture
def pair(topic: str) -> tuple[ceiba.Producer, ceiba.Consumer]:
    config = {"provider": {"type": "memory", "topic": topic}}
    return ceiba.Producer(config, "p"), ceiba.Consumer(config, "c")


Pair = tuple[ceiba.Producer, ceiba.Consumer]


def test_receive_returns_up_to_max(pair: Pair) -> None:
    producer, consumer = pair
    producer.send_batch([b"1", b"2", b"3"])
    assert [d.data for d in consumer.receive(2)] == [b"1", b"2"]
    assert [d.data for d in consumer.receive(2)] == [b"3"]


def test_receive_returns_nothing_at_its_deadline(pair: Pair) -> None:
    start = time.monotonic()
    assert pair[1].receive(1, 0.25) == []
    assert 0.25 <= time.monotonic() - start < 5
    assert pair[1].receive(1, 0) == []


def test_a_delivery_tells_where_it_came_from(pair: Pair, topic: str) -> None:
    pair[0].send(b"x")
    (delivery,) = pair[1].receive()
    assert (delivery.topic, delivery.consumer, delivery.attempt) == (topic, "c", 1)
    assert delivery.created is not None
    assert abs((datetime.now(timezone.utc) - delivery.created).total_seconds()) < 60
    assert (delivery.key, delivery.tag, delivery.content_type, delivery.attributes) == (None, None, None, {})
    assert delivery.body == b"x"
    assert delivery.data is delivery.body
    assert topic in repr(delivery)


def test_text_of_a_body_that_is_not_utf8(pair: Pair) -> None:
    pair[0].send(b"\xff")
    (delivery,) = pair[1].receive()
    with pytest.raises(UnicodeDecodeError):
        _ = delivery.text


def test_what_is_acknowledged_does_not_come_again(pair: Pair) -> None:
    producer, consumer = pair
    producer.send_batch([b"1", b"2", b"3", b"4"])
    first, second, third, fourth = consumer.receive(10)
    first.ack()
    consumer.ack(second.code)
    assert consumer.ack_many([third.code, "no such code"])[0] is None
    fourth.nack()
    (again,) = consumer.receive(10, 1)
    assert (again.data, again.attempt) == (b"4", 2)
    ceiba.consumer_ack("c", again.code)
    assert consumer.status()["held"] == 0


def test_an_unknown_code_is_not_found(pair: Pair) -> None:
    with pytest.raises(ceiba.NotFound):
        pair[1].ack("0" * 16)
    (error,) = pair[1].nack_many(["0" * 16])
    assert isinstance(error, ceiba.NotFound)


def test_nack_after_a_delay(pair: Pair) -> None:
    pair[0].send(b"x")
    (delivery,) = pair[1].receive()
    start = time.monotonic()
    delivery.nack(0.3)
    (again,) = pair[1].receive(1, 5)
    assert time.monotonic() - start >= 0.3
    assert pair[1].nack_many([again.code], 0) == [None]


def test_what_is_not_acknowledged_comes_again(topic: str) -> None:
    config = {"provider": {"type": "memory", "topic": topic, "redeliver_after": "200ms"}}
    with ceiba.Producer(f"memory://{topic}") as producer, ceiba.Consumer(config) as consumer:
        producer.send(b"x")
        attempts = [consumer.receive(1, 5)[0].attempt for _ in range(3)]
    assert attempts == [1, 2, 3]


def test_iteration_never_acknowledges_by_itself(pair: Pair) -> None:
    producer, consumer = pair
    producer.send_batch([b"1", b"2", b"3"])
    seen = []
    for delivery in consumer:
        seen.append(delivery.data)
        if len(seen) == 2:
            break
    assert seen == [b"1", b"2"]
    status = consumer.status()
    # The third was not fetched ahead.
    assert (status["held"], status["unacked"]) == (3, 2)
    assert next(consumer).data == b"3"


def test_iteration_ends_when_the_consumer_is_closed(pair: Pair) -> None:
    producer, consumer = pair
    producer.send(b"x")
    seen = []
    for delivery in consumer:
        seen.append(delivery.data)
        # Closed while the iteration waits for the next.
        threading.Timer(0.4, consumer.close).start()
    assert seen == [b"x"]
    assert list(consumer) == []


def test_receives_under_way_end_when_the_consumer_is_closed(pair: Pair) -> None:
    threading.Timer(2, lambda: ceiba.consumer_close("c")).start()
    with pytest.raises(ceiba.Closed):
        pair[1].receive(1, 60)


def test_consumers_of_one_topic_share_its_messages(topic: str) -> None:
    config = {"provider": {"type": "memory", "topic": topic}}
    got: list[bytes] = []
    with ceiba.Producer(config) as producer, ceiba.Consumer(config) as one, ceiba.Consumer(config) as two:
        def receive(consumer: ceiba.Consumer) -> None:
            for delivery in consumer:
                got.append(delivery.data)
                delivery.ack()

        threads = [threading.Thread(target=receive, args=(each,)) for each in (one, two)]
        for thread in threads:
            thread.start()
        bodies = [str(n).encode() for n in range(500)]
        producer.send_batch(bodies)
        until = time.monotonic() + 20
        while len(got) < 500 and time.monotonic() < until:
            time.sleep(0.01)
        one.close()
        two.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert sorted(got) == sorted(bodies)
