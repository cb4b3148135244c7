"""Send and receive messages over many systems, by id.

    import ceiba

    ceiba.producer_open("kapokmq://:SECRET@127.0.0.1:8011/orders", "orders")
    ceiba.producer_send("orders", b"hello")

The calls by id (`producer_send`, `consumer_receive`, ...) and the classes over them (`Producer`,
`Consumer`) can be mixed. `strategy` puts retry, timeout,
rate limit and circuit breaker around functions of your own. Every call may be made from any thread; calls that wait release the interpreter's
lock and can be interrupted by Ctrl-C. Every failure is a `ceiba.Error`.
"""

from __future__ import annotations

import atexit as _atexit
import os as _os

from . import _ceiba
from ._ceiba import (
    Broker,
    Completion,
    Delivery,
    Message,
    Receipt,
    __version__,
    completions,
    completions_fd,
    consumer_ack,
    consumer_ack_many,
    consumer_close,
    consumer_nack,
    consumer_nack_many,
    consumer_open,
    consumer_receive,
    consumer_status,
    metrics,
    open_file,
    producer_cancel,
    producer_close,
    producer_control,
    producer_flush,
    producer_open,
    producer_send,
    producer_send_batch,
    producer_status,
    producer_submit,
    producer_submit_many,
    producer_submit_message,
    register_host,
    set_completion_capacity,
    set_workers,
    shutdown,
    unregister_host,
)
from ._clients import Consumer, Producer
from ._errors import (
    AllFailed,
    AlreadyOpen,
    Authentication,
    Cancelled,
    CircuitOpen,
    Closed,
    Error,
    Forked,
    Internal,
    InUse,
    InvalidArgument,
    InvalidConfig,
    Limited,
    NotFound,
    Part,
    Partial,
    Permission,
    Protocol,
    QueueFull,
    Storage,
    Throttled,
    Timeout,
    TooLarge,
    Unavailable,
    UnknownId,
    Unsupported,
    WouldDeadlock,
)
from ._logging import disable_logging, enable_logging
from ._strategy import strategy

__all__ = [
    "AllFailed",
    "AlreadyOpen",
    "Authentication",
    "Broker",
    "Cancelled",
    "CircuitOpen",
    "Closed",
    "Completion",
    "Consumer",
    "Delivery",
    "Error",
    "Forked",
    "InUse",
    "Internal",
    "InvalidArgument",
    "InvalidConfig",
    "Limited",
    "Message",
    "NotFound",
    "Part",
    "Partial",
    "Permission",
    "Producer",
    "Protocol",
    "QueueFull",
    "Receipt",
    "Storage",
    "Throttled",
    "Timeout",
    "TooLarge",
    "Unavailable",
    "UnknownId",
    "Unsupported",
    "WouldDeadlock",
    "__version__",
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
    "disable_logging",
    "enable_logging",
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
    "strategy",
    "unregister_host",
]


def _at_exit() -> None:
    try:
        _ceiba._at_exit()
    finally:
        disable_logging()


_atexit.register(_at_exit)
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_ceiba._after_fork)
