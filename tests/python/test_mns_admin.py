"""`ceiba.MnsAdmin` over the broker in the box, and messages of the queues that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import ceiba


@pytest.fixture
def account() -> Iterator[str]:
    keys = {"key-id": "key-secret"}
    with ceiba.Broker(mns={"keys": keys, "private_endpoints": True}) as broker:
        assert broker.mns_address is not None
        yield f"mns://key-id:key-secret@{broker.mns_address}"


def test_queues(account: str) -> None:
    admin = ceiba.MnsAdmin(account)
    assert admin.create_queue("q", visibility_timeout=40, delay_seconds=0, logging_enabled=True) is True
    assert admin.create_queue("q", visibility_timeout=40, delay_seconds=0, logging_enabled=True) is False
    with pytest.raises(ceiba.InvalidArgument, match="QueueAlreadyExist"):
        admin.create_queue("q", visibility_timeout=41)
    admin.set_queue("q", visibility_timeout=50, polling_wait_seconds=1)
    told = admin.queue("q")
    assert (told["name"], told["visibility_timeout"], told["polling_wait_seconds"]) == ("q", 50, 1)
    assert told["logging_enabled"] is True
    for number in range(5):
        admin.create_queue(f"many-{number}")
    assert [queue["name"] for queue in admin.queues("many-", page=2)] == [f"many-{n}" for n in range(5)]
    assert len(list(admin.queues())) == 6
    admin.delete_queue("many-0")
    with pytest.raises(ceiba.NotFound):
        admin.queue("many-0")


@pytest.mark.parametrize(("encoding", "data"), [("raw", "hello 木".encode()), ("base64", b"\x00\xff")])
def test_messages_of_a_queue(account: str, encoding: str, data: bytes) -> None:
    url = f"{account}/queues/q?body_encoding={encoding}"
    admin = ceiba.MnsAdmin(url)
    admin.create_queue("q")
    assert admin.peek("q") == []
    with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
        producer.send(data)
        (seen,) = admin.peek("q", 16) or [{}]
        (delivery,) = consumer.receive(1, 10)
        assert delivery.body == data
        delivery.ack()
        # The consumer may have been first.
        if seen:
            assert seen.get("body", seen.get("body_base64")) in ("hello 木", "AP8=")
            assert seen["priority"] == 8
    assert admin.queue("q")["active_messages"] == 0


def test_what_is_delayed_is_taken_back(account: str) -> None:
    url = f"{account}/queues/q"
    admin = ceiba.MnsAdmin(url)
    admin.create_queue("q")
    with ceiba.Producer(url) as producer, ceiba.Consumer(url) as consumer:
        assert producer.send("at once").code is None
        receipt = producer.send("late", delay=600)
        assert receipt.code and admin.queue("q")["delay_messages"] == 1
        consumer.ack(receipt.code)
        assert admin.queue("q")["delay_messages"] == 0
        with pytest.raises(ceiba.NotFound):
            consumer.ack(receipt.code)


def test_topics_and_subscriptions(account: str) -> None:
    admin = ceiba.MnsAdmin({"provider": {"type": "mns", "url": account.replace("mns://key-id:key-secret@", "http://"),
                                         "access_key_id": "key-id", "access_key_secret": "key-secret"}}, timeout=10)
    assert admin.create_topic("t", maximum_message_size=2048) is True
    admin.set_topic("t", logging_enabled=True)
    assert admin.topic("t")["logging_enabled"] is True
    assert [topic["name"] for topic in admin.topics()] == ["t"]
    admin.create_queue("q")
    to = "acs:mns:here:1:queues/q"
    assert admin.subscribe("t", "s", to, filter_tag="red", notify_content_format="SIMPLIFIED") is True
    assert admin.subscribe("t", "s", to, filter_tag="red", notify_content_format="SIMPLIFIED") is False
    admin.set_subscription("t", "s", notify_strategy="EXPONENTIAL_DECAY_RETRY")
    assert admin.subscription("t", "s")["notify_strategy"] == "EXPONENTIAL_DECAY_RETRY"
    assert [one["name"] for one in admin.subscriptions("t")] == ["s"]
    with ceiba.Producer(f"{account}/topics/t") as producer, ceiba.Consumer(f"{account}/queues/q") as consumer:
        producer.send("for nobody", tag="blue")
        producer.send("hello", tag="red")
        (delivery,) = consumer.receive(1, 10)
        assert delivery.text == "hello"
        delivery.ack()
    admin.unsubscribe("t", "s")
    assert list(admin.subscriptions("t")) == []
    admin.delete_topic("t")
    with pytest.raises(ceiba.NotFound):
        admin.topic("t")


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ({}, "has 0"),
        ({"get_queu": {"queue": "q"}}, "get_queue"),
        ({"get_queue": {"queue": "q", "limit": 1}}, "limit"),
        ({"get_queue": {"queue": object()}}, "object"),
        ({"create_queue": {"queue": "q", "attributes": {"delay_seconds": "1"}}}, "attributes.delay_seconds"),
    ],
)
def test_commands_that_are_none(account: str, command: dict[str, Any], part: str) -> None:
    with pytest.raises(ceiba.InvalidArgument, match=part):
        ceiba.MnsAdmin(account).run(command)


def test_what_cannot_be_done_is_said(account: str) -> None:
    with pytest.raises(ceiba.Unsupported, match="delete it and create it again"):
        ceiba.MnsAdmin(account).run({"purge_queue": {"queue": "q"}})
    wrong = account.replace("key-secret", "other")
    with pytest.raises(ceiba.Authentication) as refused:
        ceiba.MnsAdmin(wrong).queue("q")
    assert "other" not in str(refused.value) and "other" not in repr(ceiba.MnsAdmin(wrong))
    with pytest.raises(ceiba.Unavailable):
        ceiba.MnsAdmin("mns://id:s@127.0.0.1:1", timeout=5).queue("q")
    with pytest.raises(ceiba.InvalidConfig):
        ceiba.MnsAdmin("memory://t").queue("q")
    with pytest.raises(TypeError):
        ceiba.MnsAdmin(7)  # type: ignore[arg-type]


def test_a_broker_without_mns_has_no_address_of_it(ceiba_broker: ceiba.Broker) -> None:
    assert ceiba_broker.mns_address is None
    with pytest.raises(ceiba.InvalidConfig, match="keys"):
        ceiba.Broker(mns={"keys": {}})
    with pytest.raises(ceiba.InvalidConfig, match="network"):
        ceiba.Broker(mns={"keys": {"id": "s"}, "endpoints": ["here"]})
