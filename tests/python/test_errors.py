"""The exceptions."""

from __future__ import annotations

import pickle

import pytest

import ceiba
from ceiba import _errors

# The numbers of the C library, fixed for ever.
NUMBERS = (
    "invalid_argument invalid_config unknown_id already_open in_use closed authentication permission not_found "
    "unsupported too_large timeout cancelled unavailable throttled limited partial all_failed circuit_open "
    "queue_full storage protocol would_deadlock forked internal"
).split()


def test_every_kind_has_its_class_and_number() -> None:
    assert [(kind.kind, kind.code) for kind in _errors.KINDS] == [(n, i) for i, n in enumerate(NUMBERS, 1)]
    for kind in _errors.KINDS:
        assert kind.__name__ == kind.kind.title().replace("_", "")
        assert getattr(ceiba, kind.__name__) is kind
        assert issubclass(kind, ceiba.Error)
        assert kind.__doc__


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ceiba.Timeout, TimeoutError),
        (ceiba.Unavailable, ConnectionError),
        (ceiba.InvalidArgument, ValueError),
        (ceiba.InvalidConfig, ValueError),
        (ceiba.UnknownId, LookupError),
        (ceiba.NotFound, LookupError),
    ],
)
def test_some_are_builtin_errors_too(kind: type[ceiba.Error], builtin: type[Exception]) -> None:
    error = kind("the text", "unknown", True, 1.5, "kapokmq", 3)
    with pytest.raises(builtin, match="the text"):
        raise error
    assert str(error) == "the text"


@pytest.mark.parametrize("kind", (ceiba.Error, *_errors.KINDS))
def test_they_survive_pickling(kind: type[ceiba.Error]) -> None:
    error = pickle.loads(pickle.dumps(kind("the text", "unknown", True, 1.5, "kapokmq", 3)))
    assert type(error) is kind
    assert (str(error), error.outcome, error.retryable) == ("the text", "unknown", True)
    assert (error.retry_after, error.provider, error.attempts) == (1.5, "kapokmq", 3)


def test_an_error_of_the_library_carries_its_facts(topic: str) -> None:
    ceiba.producer_open({"provider": {"type": "memory", "topic": topic, "capacity": 1}}, "p")
    ceiba.producer_send("p", b"1")
    with pytest.raises(ceiba.QueueFull) as caught:
        ceiba.producer_send("p", b"2")
    error = caught.value
    assert (error.kind, error.code, error.outcome, error.retryable) == ("queue_full", 20, "not_sent", True)
    assert (error.provider, error.attempts, error.retry_after) == ("memory", 1, None)


def test_parts_are_told_and_survive_pickling() -> None:
    inner = ceiba.Throttled("slow", "not_sent", True, 0.5)
    parts = [ceiba.Part("recipient", "a", "id-1"), ceiba.Part("recipient", "b", error=inner)]
    error = pickle.loads(pickle.dumps(ceiba.Partial("some", "unknown", True, None, "sms", 1, parts)))
    assert [(part.of, part.name, part.message_id, part.ok) for part in error.parts] == [
        ("recipient", "a", "id-1", True),
        ("recipient", "b", None, False),
    ]
    assert repr(error.parts[1]) == "<ceiba.Part recipient 'b' throttled>"
    slow = {"kind": "throttled", "code": 15, "outcome": "not_sent", "retryable": True, "attempts": 0}
    assert error.details == {
        "kind": "partial",
        "code": 17,
        "outcome": "unknown",
        "retryable": True,
        "attempts": 1,
        "message": "some",
        "provider": "sms",
        "parts": [
            {"of": "recipient", "name": "a", "message_id": "id-1"},
            {"of": "recipient", "name": "b", "error": {**slow, "message": "slow", "retry_after_ms": 500}},
        ],
    }
    with pytest.raises(ValueError, match="attempt"):
        ceiba.Part("piece", "1")
