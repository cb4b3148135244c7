"""The classes `Producer` and `Consumer` over the calls by id."""

from __future__ import annotations

import itertools

from . import _ceiba
from ._errors import Closed, Error, Forked, UnknownId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, TypeVar

    from ._ceiba import Delivery, Message, Receipt, _Attachment, _Body, _Config, _Json

    Self = TypeVar("Self", bound="_Client")

# A wait without end is made of waits this long.
_LONG = 3600.0

_numbers = itertools.count(1)


class _Client:
    _role: str = ""

    def __init__(self, config: _Config, id: str | None = None) -> None:
        self._id = id or ""
        self._closed = True
        if id is None and _ceiba._config_id(config) is None:
            id = f"{self._role}-{next(_numbers)}"
        self._id = self._open(config, id)
        self._closed = False

    def _open(self, config: _Config, id: str | None) -> str:
        raise NotImplementedError

    def _close(self, timeout: float | timedelta | None) -> None:
        raise NotImplementedError

    @property
    def id(self) -> str:
        """The id, as the calls by id take it."""
        return self._id

    @property
    def closed(self) -> bool:
        """Whether it was closed, or never opened."""
        return self._closed

    def close(self, *, timeout: float | timedelta | None = None) -> None:
        """Closes it; a further call does nothing. `Timeout` says that some sends had to be ended."""
        if self._closed:
            return
        self._closed = True
        try:
            self._close(timeout)
        except (UnknownId, Forked):
            # Closed by its id, or open in the parent process only: nothing is left to close here.
            pass

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Error:
            # The exception that ends the block is the news.
            if error is None:
                raise

    def __repr__(self) -> str:
        return f"<ceiba.{type(self).__name__} {self._id!r}{' closed' if self._closed else ''}>"


class Producer(_Client):
    """A producer, open from its creation to `close` or the end of a `with` block.

    `config` is a dict, a JSON text or a URL. Without an `id`, here or in the config, it gets one of its own.
    """

    _role = "producer"

    def _open(self, config: _Config, id: str | None) -> str:
        return _ceiba.producer_open(config, id)

    def _close(self, timeout: float | timedelta | None) -> None:
        _ceiba.producer_close(self._id, timeout=timeout)

    def send(
        self,
        data: _Body | Message,
        delay: float | timedelta = 0,
        *,
        timeout: float | timedelta | None = None,
        content_type: str | None = None,
        key: str | None = None,
        tag: str | None = None,
        topic: str | None = None,
        template: str | None = None,
        args: _Json = None,
        recipients: Iterable[str] = (),
        attributes: dict[str, str] | None = None,
        attachments: Iterable[_Attachment] = (),
    ) -> Receipt:
        """Sends a message and waits for its receipt, until `timeout` or the client's deadline."""
        fields = _given(locals())
        if isinstance(data, _ceiba.Message) and delay == 0:
            return _ceiba.producer_send(self._id, data, timeout=timeout, **fields)
        return _ceiba.producer_send(self._id, data, delay, timeout=timeout, **fields)

    def send_batch(
        self, messages: Iterable[_Body | Message], *, timeout: float | timedelta | None = None
    ) -> list[Receipt | Error]:
        """Sends several; a `Receipt` or an `Error` (not raised) for each, in their order."""
        return _ceiba.producer_send_batch(self._id, messages, timeout=timeout)

    def submit(self, data: _Body, delay: float | timedelta = 0) -> int:
        """Submits a body without waiting and returns its token; see `ceiba.completions`."""
        return _ceiba.producer_submit(self._id, data, delay)

    def submit_many(self, data: Sequence[_Body], delay: float | timedelta = 0) -> range:
        """Submits several bodies and returns the range of their tokens, shorter when room ran out."""
        return _ceiba.producer_submit_many(self._id, data, delay)

    def submit_message(
        self,
        data: _Body | Message,
        delay: float | timedelta = 0,
        *,
        timeout: float | timedelta | None = None,
        content_type: str | None = None,
        key: str | None = None,
        tag: str | None = None,
        topic: str | None = None,
        template: str | None = None,
        args: _Json = None,
        recipients: Iterable[str] = (),
        attributes: dict[str, str] | None = None,
        attachments: Iterable[_Attachment] = (),
    ) -> int:
        """Submits a full message without waiting and returns its token."""
        fields = _given(locals())
        if isinstance(data, _ceiba.Message) and delay == 0:
            return _ceiba.producer_submit_message(self._id, data, timeout=timeout, **fields)
        return _ceiba.producer_submit_message(self._id, data, delay, timeout=timeout, **fields)

    def cancel(self, token: int) -> None:
        """Asks for a submit to end as cancelled. One that has ended is left alone."""
        _ceiba.producer_cancel(self._id, token)

    def flush(self, *, timeout: float | timedelta | None = None) -> None:
        """Waits until every earlier send and submit has ended.

        A send of another thread that still waits for room in the producer is not waited for.
        """
        _ceiba.producer_flush(self._id, timeout=timeout)

    def status(self) -> dict[str, Any]:
        """The live state; `strategies` lists those around the provider, the outermost first."""
        return _ceiba.producer_status(self._id)

    def control(self, command: dict[str, Any]) -> dict[str, Any]:
        """Changes the live state of a strategy, which `command` names; see `ceiba.producer_control`."""
        return _ceiba.producer_control(self._id, command)


class Consumer(_Client):
    """A consumer, open from its creation to `close` or the end of a `with` block.

    Iterating over it waits for deliveries one by one and ends when it is closed. Nothing is acknowledged
    unless `delivery.ack()` or `ack(code)` is called.
    """

    _role = "consumer"

    def _open(self, config: _Config, id: str | None) -> str:
        return _ceiba.consumer_open(config, id)

    def _close(self, timeout: float | timedelta | None) -> None:
        _ceiba.consumer_close(self._id, timeout=timeout)

    def receive(self, max: int = 1, timeout: float | timedelta | None = None) -> list[Delivery]:
        """Waits for deliveries: up to `max`, none when `timeout` (or the client's deadline) passes."""
        return _ceiba.consumer_receive(self._id, max, timeout)

    def ack(self, code: str) -> None:
        """Acknowledges a delivery by its code."""
        _ceiba.consumer_ack(self._id, code)

    def ack_many(self, codes: Iterable[str]) -> list[Error | None]:
        """Acknowledges several; `None` or an `Error` (not raised) for each."""
        return _ceiba.consumer_ack_many(self._id, codes)

    def nack(self, code: str, delay: float | timedelta = 0) -> None:
        """Gives a delivery back by its code, to come again after `delay`."""
        _ceiba.consumer_nack(self._id, code, delay)

    def nack_many(self, codes: Iterable[str], delay: float | timedelta = 0) -> list[Error | None]:
        """Gives several back; `None` or an `Error` (not raised) for each."""
        return _ceiba.consumer_nack_many(self._id, codes, delay)

    def status(self) -> dict[str, Any]:
        """The live state."""
        return _ceiba.consumer_status(self._id)

    def __iter__(self) -> Consumer:
        return self

    def __next__(self) -> Delivery:
        while True:
            try:
                deliveries = _ceiba.consumer_receive(self._id, 1, _LONG)
            except (Closed, UnknownId):
                raise StopIteration from None
            if deliveries:
                return deliveries[0]


_FIELDS = (
    "content_type",
    "key",
    "tag",
    "topic",
    "template",
    "args",
    "recipients",
    "attributes",
    "attachments",
)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    given = {}
    for name in _FIELDS:
        value = arguments[name]
        if value is not None and value != ():
            given[name] = value
    return given
