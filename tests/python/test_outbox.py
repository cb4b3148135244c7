"""The rows of an outbox, sync and async, by a producer's id and by the address of its store."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ceiba


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/outbox.db"


def opened(url: str, topic: str, id: str = "shop", **keys: Any) -> ceiba.Producer:
    """A producer of a topic that has room for one message."""
    return ceiba.Producer(
        {
            "id": id,
            "provider": {"type": "memory", "topic": topic, "capacity": 1},
            "strategies": [{"type": "outbox", "url": url, "max_attempts": 1, **keys}],
        }
    )


@pytest.fixture
def shop(url: str, request: pytest.FixtureRequest) -> Iterator[ceiba.Producer]:
    with opened(url, request.node.name) as producer:
        producer.send("fills")
        yield producer


def taken(topic: str, count: int) -> list[str]:
    with ceiba.Consumer({"provider": {"type": "memory", "topic": topic}}) as consumer:
        texts = []
        while len(texts) < count:
            for delivery in consumer.receive(timeout=20):
                delivery.ack()
                texts.append(delivery.text)
        return texts


def test_a_receipt_says_whether_the_message_was_sent_or_stored(url: str) -> None:
    with opened(url, "says") as producer:
        sent, stored = producer.send("sent"), producer.send("stored")
        assert (sent.stored, stored.stored) == (False, True)
        assert sent.warning is None and "it is stored" in (stored.warning or "")
        assert ceiba.Outbox(producer.id).show(stored.message_id or "")["message"] == {"body": "stored"}
        # A submit too.
        token = producer.submit("later")
        [completion] = [end for end in ceiba.completions(timeout=10) if end.token == token]
        assert completion.result().stored


def test_rows_are_looked_at_and_put_right(shop: ceiba.Producer, url: str, request: pytest.FixtureRequest) -> None:
    ids = [shop.send(text).message_id or "" for text in ("first", "second", "third")]
    own, store = ceiba.Outbox("shop"), ceiba.Outbox(url)
    assert own.target == "shop" and repr(own) == "<ceiba.Outbox 'shop'>"
    for outbox in own, store:
        page = outbox.list(limit=2, state="pending")
        assert [row["id"] for row in page["rows"]] == ids[:2] and page["next"] == ids[1]
        assert [row["id"] for row in outbox.list(after=ids[1])["rows"]] == ids[2:]
        assert [row["short"] for row in outbox.rows(page=1)] == ["first", "second", "third"]
        [counts] = outbox.stats()["producers"]
        assert (counts["producer"], counts["pending"], counts["dead"]) == ("shop", 3, 0)
    assert own.drain(timeout=20) == {"sent": 0, "failed": 3, "given_up": 3}
    assert [row["attempts"] for row in own.rows(state="dead")] == [1, 1, 1]
    assert list(store.rows(producer="nobody")) == []
    assert own.drop([ids[2], "999"]) == {"dropped": 1, "leased": [], "unknown": ["999"]}
    assert taken(request.node.name, 1) == ["fills"]
    assert own.retry([ids[0]]) == 1
    assert taken(request.node.name, 1) == ["first"]
    assert own.retry_all() == 1
    assert taken(request.node.name, 1) == ["second"]
    assert own.purge("1h", state="dead") == 0
    text = ceiba.metrics()
    assert 'ceiba_strategy_given_up_total{id="shop"' in text and 'ceiba_strategy_rows_dead{id="shop"' in text


def test_an_export_is_imported_once(shop: ceiba.Producer, url: str, tmp_path: Path) -> None:
    bodies: list[bytes | str] = ["text", b"\xff\x00", "木" * 1000]
    for body in bodies:
        shop.send(body)
    other = ceiba.Outbox(f"sqlite:{tmp_path}/other.db")
    lines = list(ceiba.Outbox("shop").export(page=2))
    assert all(json.loads(line)["producer"] == "shop" for line in lines)
    assert other.import_(lines, page=2) == {"imported": 3, "known": 0}
    assert other.import_(iter(lines)) == {"imported": 0, "known": 3}
    assert ceiba.Outbox(url).import_(lines) == {"imported": 0, "known": 3}
    messages = [other.show(row["id"])["message"] for row in other.rows()]
    assert [message.get("body") for message in messages] == ["text", None, "木" * 1000]
    assert messages[1]["body_base64"] == "/wA="
    with pytest.raises(ceiba.InvalidArgument, match="line 2"):
        other.import_([lines[0], "{}"])


def test_no_row_is_skipped_while_others_are_deleted(url: str) -> None:
    with opened(url, "paging") as producer:
        producer.send("fills")
        for number in range(300):
            producer.send(str(number))
    outbox = ceiba.Outbox(url)
    seen = []
    for row in outbox.rows(page=20):
        seen.append(row["short"])
        outbox.drop([row["id"]])
    assert seen == [str(number) for number in range(300)]
    assert list(outbox.rows()) == []


def test_the_async_class_does_the_same(shop: ceiba.Producer, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    ids = [shop.send(text).message_id or "" for text in ("first", "second", "third")]

    async def work() -> None:
        own, other = ceiba.AsyncOutbox("shop"), ceiba.AsyncOutbox(f"sqlite:{tmp_path}/other.db")
        assert [row["id"] async for row in own.rows(page=1)] == ids
        page, shown = await asyncio.gather(own.list(limit=1), own.show(ids[1]))
        assert page["next"] == ids[0] and shown["message"]["body"] == "second"
        assert await other.import_([line async for line in own.export(page=2)]) == {"imported": 3, "known": 0}
        assert (await other.stats())["producers"][0]["pending"] == 3
        assert (await own.drain())["given_up"] == 3
        assert (await own.drop(ids[2:]))["dropped"] == 1
        assert await own.retry(ids[:1]) == 1
        assert await own.retry_all() in (1, 2)
        assert await own.purge("1h") == 0
        with pytest.raises(ceiba.NotFound):
            await own.show("999")

    asyncio.run(work())


def test_the_event_loop_goes_on_while_a_drain_waits(url: str) -> None:
    release = threading.Event()
    broken = True

    def sender(message: ceiba.Message) -> None:
        if broken:
            raise OSError("down")
        assert release.wait(20)

    ceiba.register_host("slow", sender)
    config = {
        "id": "slow",
        "provider": {"type": "callback", "name": "slow"},
        "strategies": [{"type": "outbox", "url": url}],
    }
    with ceiba.Producer(config) as producer:
        assert producer.send("waits").stored
        broken = False

        async def work() -> dict[str, Any]:
            draining = asyncio.ensure_future(ceiba.AsyncOutbox("slow").drain())
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert not draining.done()
            release.set()
            return await draining

        assert asyncio.run(work()) == {"sent": 1, "failed": 0, "given_up": 0}
    ceiba.unregister_host("slow")


def test_what_is_wrong_is_said(shop: ceiba.Producer, url: str) -> None:
    own = ceiba.Outbox("shop")
    with opened(url, "plain-topic", id="other"):
        with pytest.raises(ceiba.InvalidArgument, match="another producer"):
            own.list(producer="other")
    with pytest.raises(ceiba.UnknownId, match="nobody"):
        ceiba.Outbox("nobody").stats()
    with pytest.raises(ceiba.Unsupported, match="open producer"):
        ceiba.Outbox(url).drain()
    with ceiba.Producer("memory://t?id=plain"), pytest.raises(ceiba.Unsupported, match="no outbox"):
        ceiba.Outbox("plain").list()
    with pytest.raises(ceiba.NotFound, match="999"):
        own.show("999")
    with pytest.raises(ceiba.InvalidArgument, match="number"):
        own.show("first")
    with pytest.raises(ceiba.InvalidArgument, match="limit"):
        own.list(limit=1001)
    with pytest.raises(ceiba.InvalidArgument, match="state"):
        own.list(state="gone")  # type: ignore[arg-type]
    with pytest.raises(ceiba.InvalidArgument, match="older"):
        own.purge("7")
    with pytest.raises(ceiba.Storage):
        ceiba.Outbox("sqlite:/dev/null/outbox.db").stats()
    with pytest.raises(ceiba.InvalidArgument, match="lone surrogates"):
        own.show("\ud800")
    with pytest.raises(TypeError, match="list of ids"):
        own.retry("12")
    with pytest.raises(TypeError, match="list of lines"):
        own.import_("{}")
    with pytest.raises(TypeError, match="must be a str"):
        ceiba.Outbox(7)  # type: ignore[arg-type]
    with pytest.raises(ceiba.InvalidArgument, match="negative"):
        own.stats(timeout=-1)
    assert "secret" not in repr(ceiba.Outbox("mongodb://user:secret@host/db"))
