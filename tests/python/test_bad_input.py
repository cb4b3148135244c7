"""Wrong arguments: a clear error with its code, and the process lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ceiba

CALLS_BY_ID = {
    "producer_send": (ceiba.producer_send, (b"x",)),
    "producer_send_batch": (ceiba.producer_send_batch, ([b"x"],)),
    "producer_submit": (ceiba.producer_submit, (b"x",)),
    "producer_submit_many": (ceiba.producer_submit_many, ([b"x"],)),
    "producer_submit_message": (ceiba.producer_submit_message, (b"x",)),
    "producer_cancel": (ceiba.producer_cancel, (1,)),
    "producer_flush": (ceiba.producer_flush, ()),
    "producer_status": (ceiba.producer_status, ()),
    "producer_close": (ceiba.producer_close, ()),
    "consumer_receive": (ceiba.consumer_receive, ()),
    "consumer_ack": (ceiba.consumer_ack, ("code",)),
    "consumer_ack_many": (ceiba.consumer_ack_many, (["code"],)),
    "consumer_nack": (ceiba.consumer_nack, ("code",)),
    "consumer_nack_many": (ceiba.consumer_nack_many, (["code"],)),
    "consumer_status": (ceiba.consumer_status, ()),
    "consumer_close": (ceiba.consumer_close, ()),
}

by_id = pytest.mark.parametrize("name", CALLS_BY_ID)


def call(name: str, id: Any) -> Any:
    function, arguments = CALLS_BY_ID[name]
    return function(id, *arguments)  # type: ignore[operator]


@by_id
def test_an_unknown_id(name: str) -> None:
    with pytest.raises(ceiba.UnknownId) as caught:
        call(name, "nobody")
    assert (caught.value.kind, caught.value.code, caught.value.outcome) == ("unknown_id", 3, "not_sent")
    assert "`nobody`" in str(caught.value)
    assert isinstance(caught.value, LookupError)


@by_id
def test_a_closed_id(name: str, topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "a")
    ceiba.consumer_open(f"memory://{topic}", "a")
    ceiba.producer_close("a")
    ceiba.consumer_close("a")
    with pytest.raises(ceiba.UnknownId):
        call(name, "a")


@by_id
def test_an_id_that_has_no_utf8_form(name: str) -> None:
    with pytest.raises(ceiba.InvalidArgument):
        call(name, "\ud800")


@by_id
@pytest.mark.parametrize("id", [None, 1, b"p", 1.5, object()])
def test_an_id_of_another_type(name: str, id: object) -> None:
    with pytest.raises(TypeError):
        call(name, id)


@by_id
def test_odd_ids(name: str) -> None:
    for id in ("", "\0", "x" * 100_000):
        with pytest.raises(ceiba.UnknownId) as caught:
            call(name, id)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("open", [ceiba.producer_open, ceiba.consumer_open])
@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"provider": {"type": "memory", "topik": "t"}}, "`topic`"),
        ({"provider": {"type": "memory", "topic": "t"}, "dedline": "2s"}, "`deadline`"),
        ({"provider": {"type": "memroy", "topic": "t"}}, "`memory`"),
        ({"provider": {"topic": "t"}}, "type"),
        ({}, "provider"),
        ("{}", "provider"),
        ("", "JSON"),
        ("nonsense", "URL"),
        ("{", "line 1"),
        ("memroy://t", "memory"),
        ("kapokmq://:hidden-key@127.0.0.1:1/t?windw=5", "`window`"),
        ("kapokmq://hidden-key@127.0.0.1:1/t", "user name"),
        ({"provider": {"type": "memory", "topic": "t"}, "deadline": 3}, "deadline"),
        ({"provider": {"type": "memory", "topic": "t"}, "deadline": "-3s"}, "deadline"),
        ({"provider": {"type": "memory", "topic": {1, 2}}}, "set"),
        ({"provider": {"type": "memory", "topic": b"t"}}, "bytes"),
        ({1: 2}, "keys are str"),
        ({"provider": {"type": "memory", "topic": "\ud800"}}, "surrogate"),
        ({"provider": {"type": "memory", "topic": 10**40}}, "range"),
        ({"provider": {"type": "memory", "topic": float("nan")}}, "finite"),
    ],
)
def test_a_wrong_config_is_named(open: Any, config: Any, text: str) -> None:
    with pytest.raises(ceiba.InvalidConfig) as caught:
        open(config, "x")
    assert (caught.value.kind, caught.value.code) == ("invalid_config", 2)
    assert isinstance(caught.value, ValueError)
    assert text in str(caught.value)
    assert "hidden-key" not in str(caught.value)


def test_a_config_that_never_ends() -> None:
    config: dict[str, Any] = {}
    config["provider"] = config
    with pytest.raises(ceiba.InvalidConfig, match="deep"):
        ceiba.producer_open(config, "x")


@pytest.mark.parametrize("config", [None, 1, b"memory://t", ["x"], object()])
def test_a_config_of_another_type(config: Any) -> None:
    for kind in (ceiba.producer_open, ceiba.consumer_open, ceiba.Producer, ceiba.Consumer):
        with pytest.raises(TypeError):
            kind(config)


def test_ids_at_open(topic: str) -> None:
    url = f"memory://{topic}"
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.producer_open(url)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.producer_open(url, "x" * 257)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.producer_open(url, "a\nb")
    with pytest.raises(ceiba.InvalidConfig):
        ceiba.producer_open(url + "?id=one", "two")
    ceiba.producer_open(url, "p")
    with pytest.raises(ceiba.AlreadyOpen):
        ceiba.producer_open(url, "p")
    # Consumers have an id space of their own.
    ceiba.consumer_open(url, "p")


@pytest.mark.parametrize("delay", [-1, -0.001, float("nan"), float("inf"), 2**63, 10**40, -(10**40)])
def test_a_delay_out_of_range(topic: str, delay: Any) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    for name in ("producer_send", "producer_submit", "producer_submit_many", "producer_submit_message"):
        with pytest.raises(ceiba.InvalidArgument) as caught:
            function, arguments = CALLS_BY_ID[name]
            function("p", *arguments, delay)  # type: ignore[operator]
        assert "delay" in str(caught.value)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.Message(b"x", delay)
    assert ceiba.producer_status("p")["sent"] == 0


@pytest.mark.parametrize("delay", ["1", b"1", True, [], object()])
def test_a_delay_of_another_type(topic: str, delay: Any) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    for name in ("producer_send", "producer_submit"):
        function, arguments = CALLS_BY_ID[name]
        with pytest.raises(TypeError, match="delay"):
            function("p", *arguments, delay)  # type: ignore[operator]


def test_a_delay_too_long_for_the_wire(ceiba_broker: ceiba.Broker, topic: str) -> None:
    with ceiba.Producer(ceiba_broker.url(topic)) as producer:
        with pytest.raises(ceiba.Error) as caught:
            producer.send("x", 2**63 - 1)
        assert caught.value.kind in ("invalid_argument", "unsupported")
        producer.send("y")


@pytest.mark.parametrize("data", [None, 1, 1.5, ["x"], {1}, object()])
def test_a_body_of_another_type(topic: str, data: Any) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    for function in (ceiba.producer_send, ceiba.producer_submit, ceiba.producer_submit_message):
        with pytest.raises(TypeError, match="body"):
            function("p", data)
    for many in (ceiba.producer_submit_many, ceiba.producer_send_batch):
        with pytest.raises(TypeError):
            many("p", [b"fine", data])
    assert ceiba.producer_status("p")["sent"] == 0


def test_a_body_in_the_place_of_a_list(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    for many in (ceiba.producer_submit_many, ceiba.producer_send_batch):
        for data in (b"abc", "abc", 1, None):
            with pytest.raises(TypeError):
                many("p", data)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ceiba.consumer_ack_many("c", "abc")


def test_a_text_body_with_a_lone_surrogate(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    for function in (ceiba.producer_send, ceiba.producer_submit):
        with pytest.raises(ceiba.InvalidArgument):
            function("p", "\udcff")


def test_fields_with_wrong_names_and_types(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    with pytest.raises(TypeError, match="'kye': did you mean 'key'"):
        ceiba.producer_send("p", b"x", kye="k")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="nothing_like_it"):
        ceiba.producer_send("p", b"x", nothing_like_it=1)  # type: ignore[call-arg]
    wrong: list[dict[str, Any]] = [
        {"key": 1},
        {"attributes": {"a": 1}},
        {"attributes": [("a", "b")]},
        {"recipients": "one"},
        {"recipients": [1]},
        {"recipients": 1},
        {"attachments": [("a", "b")]},
        {"attachments": [1]},
        {"timeout": "1s"},
    ]
    for fields in wrong:
        with pytest.raises(TypeError):
            ceiba.producer_send("p", b"x", **fields)
    with pytest.raises(ceiba.Error):
        ceiba.producer_send("p", b"x", args={"a": {1}})
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.producer_send("p", b"x", timeout=-1)


def test_counts_out_of_range(topic: str) -> None:
    ceiba.consumer_open(f"memory://{topic}", "c")
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.consumer_receive("c", 0)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.completions(0)
    for wrong in (-1, 2**70):
        with pytest.raises(OverflowError):
            ceiba.consumer_receive("c", wrong)
        with pytest.raises(OverflowError):
            ceiba.completions(wrong)
        with pytest.raises(OverflowError):
            ceiba.producer_cancel("c", wrong)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.completions(timeout=-1)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.set_workers(0)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.set_workers(100_000)
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.set_completion_capacity(0)


def test_files_of_clients(tmp_path: Path, topic: str) -> None:
    good = f'{{"id": "a", "provider": {{"type": "memory", "topic": "{topic}"}}}}'
    other = f'{{"id": "b", "role": "consumer", "provider": {{"type": "memory", "topic": "{topic}"}}}}'
    path = tmp_path / "clients.json"
    path.write_text(f'{{"clients": [{good}, {other}]}}')
    assert ceiba.open_file(path) == [("producer", "a"), ("consumer", "b")]
    ceiba.producer_send("a", b"x")
    assert [d.data for d in ceiba.consumer_receive("b")] == [b"x"]
    ceiba.shutdown()

    path.write_text(f'{{"clients": [{good}, {{"id": "b", "provider": {{"type": "memory"}}}}]}}')
    with pytest.raises(ceiba.InvalidConfig, match="topic"):
        ceiba.open_file(str(path))
    # None is left open.
    with pytest.raises(ceiba.UnknownId):
        ceiba.producer_status("a")
    path.write_bytes(b"\xff\xff")
    with pytest.raises(ceiba.InvalidArgument):
        ceiba.open_file(path)
    with pytest.raises(ceiba.InvalidArgument, match="nowhere"):
        ceiba.open_file(tmp_path / "nowhere.json")
    with pytest.raises(TypeError):
        ceiba.open_file(1)  # type: ignore[arg-type]
