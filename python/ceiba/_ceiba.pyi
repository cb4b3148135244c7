"""The types of the compiled module. A time is a number of seconds or a timedelta."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from os import PathLike
from types import TracebackType
from typing import Any, Literal, TypeAlias, final

from ._errors import Error, Part

# A dict becomes JSON.
_Body: TypeAlias = bytes | bytearray | memoryview | str | dict[str, Any]
_Config: TypeAlias = dict[str, Any] | str
# What JSON can say; not spelled out, because a recursive type refuses most real dicts.
_Json: TypeAlias = Any
# Name, content type, data.
_Attachment: TypeAlias = tuple[str, str, _Body]

__all__ = [
    "Broker",
    "Completion",
    "Delivery",
    "Message",
    "Receipt",
    "_HostCall",
    "_HostCalls",
    "_Run",
    "_Strategy",
    "_Wakes",
    "__version__",
    "_after_fork",
    "_at_exit",
    "_config_id",
    "_log_close",
    "_log_level",
    "_log_take",
    "_mns_admin",
    "_outbox",
    "completions",
    "completions_fd",
    "consumer_ack",
    "consumer_ack_many",
    "consumer_close",
    "consumer_nack",
    "consumer_nack_many",
    "consumer_open",
    "consumer_receive",
    "consumer_status",
    "metrics",
    "open_file",
    "producer_cancel",
    "producer_close",
    "producer_control",
    "producer_flush",
    "producer_open",
    "producer_send",
    "producer_send_batch",
    "producer_status",
    "producer_submit",
    "producer_submit_many",
    "producer_submit_message",
    "register_host",
    "set_completion_capacity",
    "set_workers",
    "shutdown",
    "unregister_host",
]

__version__: str

@final
class Message:
    def __new__(
        cls,
        data: _Body,
        delay: float | timedelta = 0,
        *,
        content_type: str | None = None,
        key: str | None = None,
        tag: str | None = None,
        topic: str | None = None,
        template: str | None = None,
        args: _Json = None,
        recipients: Iterable[str] = (),
        attributes: dict[str, str] | None = None,
        attachments: Iterable[_Attachment] = (),
    ) -> Message: ...
    @property
    def body(self) -> bytes: ...
    @property
    def data(self) -> bytes: ...
    @property
    def delay(self) -> float: ...
    @property
    def fields(self) -> dict[str, Any]: ...

@final
class Receipt:
    @property
    def message_id(self) -> str | None: ...
    @property
    def code(self) -> str | None: ...
    @property
    def provider(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def stored(self) -> bool: ...
    @property
    def warning(self) -> str | None: ...
    @property
    def parts(self) -> tuple[Part, ...]: ...

@final
class Completion:
    @property
    def token(self) -> int: ...
    @property
    def ok(self) -> bool: ...
    @property
    def receipt(self) -> Receipt | None: ...
    @property
    def error(self) -> Error | None: ...
    def result(self) -> Receipt: ...

@final
class Delivery:
    @property
    def body(self) -> bytes: ...
    @property
    def data(self) -> bytes: ...
    @property
    def text(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def consumer(self) -> str: ...
    @property
    def created(self) -> datetime | None: ...
    @property
    def attempt(self) -> int | None: ...
    @property
    def key(self) -> str | None: ...
    @property
    def tag(self) -> str | None: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def attributes(self) -> dict[str, str]: ...
    def ack(self) -> None: ...
    def nack(self, delay: float | timedelta = 0) -> None: ...

@final
class Broker:
    def __new__(
        cls,
        listen: str = "127.0.0.1:0",
        *,
        secret: str | None = None,
        delivery: Literal["work_queue", "publish_subscribe"] = "work_queue",
        data: str | PathLike[str] | None = None,
        redeliver_after: float | timedelta | None = None,
        advertise: str | None = None,
        nodes: Iterable[str] = (),
        dpmq: bool = False,
        durability: str | None = None,
        max_attempts: int | None = None,
        expire_after: float | timedelta | None = None,
        push_every: float | timedelta | None = None,
        push_count: int | None = None,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        when_full: Literal["wait", "refuse"] | None = None,
        deduplicate: float | timedelta | None = None,
        compat: bool = False,
        topics: dict[str, dict[str, object]] | None = None,
        mns: dict[str, object] | None = None,
    ) -> Broker: ...
    @property
    def address(self) -> str: ...
    @property
    def mns_address(self) -> str | None: ...
    @property
    def secret(self) -> str: ...
    def url(self, topic: str) -> str: ...
    def status(self) -> dict[str, Any]: ...
    def stop(self, timeout: float | timedelta = 5) -> bool: ...
    def __enter__(self) -> Broker: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

@final
class _HostCall:
    @property
    def number(self) -> int: ...
    @property
    def message(self) -> Message | None: ...
    @property
    def remaining(self) -> float | None: ...
    @property
    def abandoned(self) -> bool: ...
    def sent(self, id: str | None = None) -> None: ...
    def failed(self, error: BaseException, retryable: bool | None = None) -> None: ...

@final
class _HostCalls:
    def take(self, patience: float) -> tuple[_HostCall, bool] | None: ...

@final
class _Strategy:
    def __new__(
        cls, id: str, strategies: list[dict[str, Any]], deadline: float | timedelta | None = None
    ) -> _Strategy: ...
    def start(self) -> _Run: ...

@final
class _Run:
    def next(self) -> _HostCall | None: ...
    def poll(self, wakes: _Wakes | None, token: int) -> _HostCall | None: ...
    @property
    def ended(self) -> bool: ...
    def outcome(self) -> tuple[int | None, int | None, Error | None]: ...
    def drop(self) -> None: ...

@final
class _Wakes:
    def __new__(cls) -> _Wakes: ...
    def fileno(self) -> int: ...
    def take(self) -> list[int]: ...

def producer_open(config: _Config, id: str | None = None) -> str: ...
def producer_send(
    id: str,
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
) -> Receipt: ...
def producer_send_batch(
    id: str, messages: Iterable[_Body | Message], *, timeout: float | timedelta | None = None
) -> list[Receipt | Error]: ...
def producer_submit(id: str, data: _Body, delay: float | timedelta = 0) -> int: ...
def producer_submit_many(id: str, data: Sequence[_Body], delay: float | timedelta = 0) -> range: ...
def producer_submit_message(
    id: str,
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
) -> int: ...
def producer_cancel(id: str, token: int) -> None: ...
def producer_flush(id: str, *, timeout: float | timedelta | None = None) -> None: ...
def producer_status(id: str) -> dict[str, Any]: ...
def producer_control(id: str, command: dict[str, Any]) -> dict[str, Any]: ...
def producer_close(id: str, *, timeout: float | timedelta | None = None) -> None: ...
def completions(max: int = 1024, timeout: float | timedelta | None = 0) -> list[Completion]: ...
def completions_fd() -> int: ...
def set_completion_capacity(capacity: int) -> None: ...
def consumer_open(config: _Config, id: str | None = None) -> str: ...
def consumer_receive(
    id: str, max: int = 1, timeout: float | timedelta | None = None
) -> list[Delivery]: ...
def consumer_ack(id: str, code: str) -> None: ...
def consumer_ack_many(id: str, codes: Iterable[str]) -> list[Error | None]: ...
def consumer_nack(id: str, code: str, delay: float | timedelta = 0) -> None: ...
def consumer_nack_many(
    id: str, codes: Iterable[str], delay: float | timedelta = 0
) -> list[Error | None]: ...
def consumer_status(id: str) -> dict[str, Any]: ...
def consumer_close(id: str, *, timeout: float | timedelta | None = None) -> None: ...
def open_file(path: str | PathLike[str]) -> list[tuple[str, str]]: ...
def register_host(
    name: str, sender: Callable[[Message], Any], *, loop: AbstractEventLoop | None = None
) -> None: ...
def unregister_host(name: str) -> None: ...
def set_workers(workers: int) -> None: ...
def metrics() -> str: ...
def shutdown(timeout: float | timedelta = 10) -> dict[str, int]: ...
def _config_id(config: _Config) -> str | None: ...
def _after_fork() -> None: ...
def _at_exit() -> None: ...
def _log_level(level: int | None) -> None: ...
def _log_take(max: int, timeout: float) -> tuple[list[tuple[int, str, str, float]], int, bool]: ...
def _log_close() -> None: ...
def _mns_admin(
    config: _Config,
    command: dict[str, Any],
    timeout: float | timedelta | None = None,
) -> dict[str, Any]: ...
def _outbox(
    operation: str,
    target: str,
    options: dict[str, Any] | None = None,
    timeout: float | timedelta | None = None,
) -> dict[str, Any]: ...
