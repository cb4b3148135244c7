"""The KapokMQ provider over the broker in the box."""

from __future__ import annotations

import datetime
import pathlib
import threading
import time
from typing import Any

import pytest

import ceiba


def test_send_receive_ack(ceiba_broker: ceiba.Broker, topic: str) -> None:
    url = ceiba_broker.url(topic)
    with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
        assert producer.send("hello").provider == "kapokmq"
        (delivery,) = consumer.receive(1, 10)
        assert (delivery.text, delivery.topic) == ("hello", topic)
        delivery.ack()
        # An ack is told of only when it cannot be written; the broker leaves a code that it does not know alone.
        consumer.ack("no such code")
    status = ceiba_broker.status()
    assert (status["accepted"], status["acknowledged"], status["failed_logins"]) == (1, 1, 0)


def test_a_topic_with_any_characters(ceiba_broker: ceiba.Broker) -> None:
    url = ceiba_broker.url("a b ü?&#%")
    with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
        producer.send("x")
        (delivery,) = consumer.receive(1, 10)
        assert delivery.topic == "a b ü?&#%"
        delivery.ack()


def test_ten_thousand_messages_in_order(ceiba_broker: ceiba.Broker, topic: str) -> None:
    url = ceiba_broker.url(topic)
    count = 10_000
    got: list[str] = []
    with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
        def receive() -> None:
            while len(got) < count:
                deliveries = consumer.receive(256, 10)
                if not deliveries:
                    return
                got.extend(delivery.text for delivery in deliveries)
                assert set(consumer.ack_many([delivery.code for delivery in deliveries])) == {None}

        thread = threading.Thread(target=receive)
        thread.start()
        tokens: list[int] = []
        while len(tokens) < count:
            tokens += producer.submit_many([str(n) for n in range(len(tokens), min(len(tokens) + 500, count))])
        done: list[ceiba.Completion] = []
        until = time.monotonic() + 30
        while len(done) < count and time.monotonic() < until:
            done += ceiba.completions(4096, 1)
        thread.join(30)
    assert [one.token for one in done] == tokens
    assert all(one.ok for one in done)
    assert got == [str(n) for n in range(count)]


def test_publish_subscribe_reaches_each_consumer(topic: str) -> None:
    with ceiba.Broker(delivery="publish_subscribe", secret="k&y /?") as broker:
        assert broker.secret == "k&y /?"
        url = broker.url(topic)
        with ceiba.Consumer(url) as one, ceiba.Consumer(url) as two, ceiba.Producer(url) as producer:
            producer.send("to all")
            for consumer in (one, two):
                (delivery,) = consumer.receive(1, 10)
                assert delivery.text == "to all"
                delivery.ack()


def test_a_delay_is_rounded_up_and_never_early(ceiba_broker: ceiba.Broker, topic: str) -> None:
    url = ceiba_broker.url(topic)
    with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
        start = time.monotonic()
        producer.send("later", 2.4)
        assert consumer.receive(1, 0.3) == []
        assert [d.text for d in consumer.receive(1, 20)] == ["later"]
        assert time.monotonic() - start >= 2.4


def test_a_wrong_secret_is_refused_and_never_shown(ceiba_broker: ceiba.Broker, topic: str) -> None:
    url = f"kapokmq://:wrong-one@{ceiba_broker.address}/{topic}"
    for kind in (ceiba.Producer, ceiba.Consumer):
        with pytest.raises(ceiba.Authentication) as caught:
            kind(url)
        assert (caught.value.kind, caught.value.code) == ("authentication", 7)
        assert not caught.value.retryable
        assert "wrong-one" not in str(caught.value) + repr(caught.value)
    assert ceiba_broker.status()["failed_logins"] >= 2


def test_a_host_that_cannot_be_reached(topic: str) -> None:
    url = f"kapokmq://:hidden-key@127.0.0.1:9/{topic}?connect_timeout=300ms"
    with pytest.raises(ceiba.Unavailable) as caught:
        ceiba.Producer(url, "p")
    assert caught.value.outcome == "not_sent"
    assert caught.value.retryable
    assert isinstance(caught.value, ConnectionError)
    assert "hidden-key" not in str(caught.value)
    # The id is free.
    ceiba.Producer(f"memory://{topic}", "p").close()


def test_a_body_that_the_wire_cannot_carry(ceiba_broker: ceiba.Broker, topic: str) -> None:
    with ceiba.Producer(ceiba_broker.url(topic)) as producer:
        with pytest.raises(ceiba.Unsupported):
            producer.send(b"\xff\xfe")
        with pytest.raises(ceiba.TooLarge):
            producer.send(b"x" * (65 << 20))
        assert producer.send("still alive").attempts == 1


def test_a_body_of_16_mib(ceiba_broker: ceiba.Broker, topic: str) -> None:
    url = ceiba_broker.url(topic)
    body = b"0123456789abcdef" * (1 << 20)
    with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
        producer.send(body)
        (delivery,) = consumer.receive(1, 20)
        assert delivery.data == body
        delivery.ack()


def test_unacknowledged_deliveries_come_back_when_the_consumer_goes(ceiba_broker: ceiba.Broker, topic: str) -> None:
    url = ceiba_broker.url(topic)
    with ceiba.Producer(url) as producer:
        producer.send("x")
    with ceiba.Consumer(url) as consumer:
        assert len(consumer.receive(1, 10)) == 1
    with ceiba.Consumer(url) as consumer:
        (delivery,) = consumer.receive(1, 10)
        delivery.ack()


def test_every_send_ends_when_the_broker_goes(topic: str) -> None:
    broker = ceiba.Broker()
    url = broker.url(topic) + "?deadline=2s"
    ended: list[str] = []
    with ceiba.Producer(url) as producer:
        def send() -> None:
            for _ in range(2_000):
                try:
                    producer.send("x")
                    ended.append("sent")
                except ceiba.Error as error:
                    assert error.outcome in ("not_sent", "unknown")
                    ended.append(error.kind)
                    return

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        broker.stop(0)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert set(ended) <= {"sent", "timeout", "unavailable"}


def test_stopping_twice_and_status_after(topic: str) -> None:
    broker = ceiba.Broker()
    assert broker.stop() is True
    assert broker.stop() is True
    with pytest.raises(ceiba.Closed):
        broker.status()
    assert "stopped" in repr(broker)


def test_the_brokers_own_arguments_are_checked() -> None:
    with pytest.raises(ceiba.InvalidArgument, match="work_queue"):
        ceiba.Broker(delivery="work_queu")  # type: ignore[arg-type]
    with pytest.raises(ceiba.Unavailable):
        ceiba.Broker("127.0.0.1:not-a-port")
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.Broker(secret="")
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.Broker(nodes=["no port"])
    with ceiba.Broker() as first, pytest.raises(ceiba.Unavailable):
        ceiba.Broker(first.address)


def test_a_cluster_producer_spreads_over_the_nodes(topic: str) -> None:
    with ceiba.Broker(secret="s") as second, ceiba.Broker(secret="s", nodes=[second.address]) as first:
        config = {
            "provider": {
                "type": "kapokmq",
                "registry": f"http://{first.address}",
                "topic": topic,
                "secret_key": "s",
                "spread": "round_robin",
            }
        }
        with ceiba.Producer(config) as producer:
            for n in range(20):
                producer.send(str(n))
        accepted = [broker.status()["accepted"] for broker in (first, second)]
    assert sum(accepted) == 20
    assert min(accepted) >= 5


def test_one_topic_has_settings_of_its_own() -> None:
    with ceiba.Broker(max_messages=1, when_full="refuse", topics={"wide": {"max_messages": 3}}) as broker:
        with ceiba.Producer(broker.url("wide")) as wide, ceiba.Producer(broker.url("narrow")) as narrow:
            for number in range(3):
                wide.send(str(number))
            narrow.send("0")
            with pytest.raises(ceiba.QueueFull):
                narrow.send("1")
    with pytest.raises(ceiba.InvalidArgument, match="topics.wide.*max_messages"):
        ceiba.Broker(topics={"wide": {"max_message": 3}})
    with pytest.raises((TypeError, AttributeError)):
        ceiba.Broker(topics=["wide"])  # type: ignore[arg-type]


def test_topics_are_kept_and_delivered_as_the_broker_is_told(topic: str, tmp_path: pathlib.Path) -> None:
    with ceiba.Broker(
        data=tmp_path / "data",
        durability="interval:100ms",
        max_attempts=2,
        expire_after=datetime.timedelta(hours=1),
        push_every=0.01,
        push_count=10,
        max_messages=2,
        max_bytes=1 << 20,
        when_full="refuse",
        deduplicate=60,
        compat=True,
    ) as broker:
        url = broker.url(topic)
        with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
            first = producer.send(ceiba.Message("one", key="k"))
            assert first.message_id is not None
            assert producer.send(ceiba.Message("one", key="k")).message_id == first.message_id
            producer.send("two")
            with pytest.raises(ceiba.QueueFull) as refused:
                producer.send("three")
            assert refused.value.outcome == "not_sent"
            for attempt in (1, 2):
                (delivery,) = consumer.receive(1, 10)
                while delivery.text != "one":
                    delivery.ack()
                    (delivery,) = consumer.receive(1, 10)
                assert (delivery.attempt, delivery.code) == (attempt, first.message_id)
                delivery.nack()
        with ceiba.Consumer(broker.url(topic + ".dead")) as consumer:
            (dead,) = consumer.receive(1, 10)
            assert dead.text == "one"
        status = broker.status()
        assert (status["dead"], status["durability"], status["log"]) == (1, "interval", "serving")


def test_a_durability_needs_a_folder() -> None:
    for asked in ("fsync", "interval", "interval:200ms"):
        with pytest.raises(ceiba.InvalidConfig, match="needs a folder for the messages: name one in `data`"):
            ceiba.Broker(durability=asked)
    with ceiba.Broker(durability="memory") as broker:
        assert broker.status()["durability"] == "memory"


@pytest.mark.parametrize(
    "wrong",
    [
        {"durability": "sometimes"},
        {"durability": "interval:0s"},
        {"max_attempts": 0},
        {"push_count": 3},
        {"expire_after": 0},
        {"when_full": "drop"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ceiba.InvalidArgument, match=next(iter(wrong))):
        ceiba.Broker(**wrong)
