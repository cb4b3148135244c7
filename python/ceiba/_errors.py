"""The exceptions: one class for each kind, all of them `ceiba.Error`."""

from __future__ import annotations

import builtins


class Error(Exception):
    """A call of ceiba failed.

    `kind` and `code` say what went wrong (the code is the number that the C library returns), `outcome`
    whether the message may have been sent ("not_sent" or "unknown"), `retryable` whether the same call may
    succeed later, `retry_after` the least seconds to wait before that, where the other side named them.
    """

    kind: str = ""
    code: int = 0

    def __init__(
        self,
        message: str = "",
        outcome: str = "not_sent",
        retryable: bool = False,
        retry_after: float | None = None,
        provider: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.retryable = retryable
        self.retry_after = retry_after
        self.provider = provider
        self.attempts = attempts

    def __reduce__(self) -> tuple[type[Error], tuple[object, ...]]:
        return type(self), (
            str(self),
            self.outcome,
            self.retryable,
            self.retry_after,
            self.provider,
            self.attempts,
        )


class InvalidArgument(Error, ValueError):
    """An argument of the call is wrong."""

    kind = "invalid_argument"
    code = 1


class InvalidConfig(Error, ValueError):
    """The configuration is wrong; the message names the key."""

    kind = "invalid_config"
    code = 2


class UnknownId(Error, LookupError):
    """No client with this id is open."""

    kind = "unknown_id"
    code = 3


class AlreadyOpen(Error):
    """A client with this id is open already."""

    kind = "already_open"
    code = 4


class InUse(Error):
    """The client is held by another one."""

    kind = "in_use"
    code = 5


class Closed(Error):
    """The client was closed."""

    kind = "closed"
    code = 6


class Authentication(Error):
    """The other side refused the credentials."""

    kind = "authentication"
    code = 7


class Permission(Error):
    """The credentials do not allow this."""

    kind = "permission"
    code = 8


class NotFound(Error, LookupError):
    """The queue, topic or message does not exist on the other side."""

    kind = "not_found"
    code = 9


class Unsupported(Error):
    """The provider cannot honour this; nothing was dropped in silence."""

    kind = "unsupported"
    code = 10


class TooLarge(Error):
    """The message is over a limit of size."""

    kind = "too_large"
    code = 11


class Timeout(Error, builtins.TimeoutError):
    """The deadline passed."""

    kind = "timeout"
    code = 12


class Cancelled(Error):
    """The caller cancelled."""

    kind = "cancelled"
    code = 13


class Unavailable(Error, builtins.ConnectionError):
    """The other side cannot be reached or does not answer."""

    kind = "unavailable"
    code = 14


class Throttled(Error):
    """The other side asked for fewer calls."""

    kind = "throttled"
    code = 15


class Limited(Error):
    """A rate limit of the configuration was met."""

    kind = "limited"
    code = 16


class Partial(Error):
    """Some recipients failed; the others were sent."""

    kind = "partial"
    code = 17


class AllFailed(Error):
    """Every member of a failover failed."""

    kind = "all_failed"
    code = 18


class CircuitOpen(Error):
    """The circuit breaker is open."""

    kind = "circuit_open"
    code = 19


class QueueFull(Error):
    """A bounded queue stayed full until the deadline."""

    kind = "queue_full"
    code = 20


class Storage(Error):
    """The local store failed."""

    kind = "storage"
    code = 21


class Protocol(Error):
    """The other side broke the protocol."""

    kind = "protocol"
    code = 22


class WouldDeadlock(Error):
    """A blocking call was made on a thread of the runtime."""

    kind = "would_deadlock"
    code = 23


class Forked(Error):
    """The client belongs to the parent process."""

    kind = "forked"
    code = 24


class Internal(Error):
    """A fault of this library."""

    kind = "internal"
    code = 25


# By the number of the kind; a number that is newer than this file is the plain Error.
BY_CODE: list[type[Error]] = [Error] * 26
for _class in Error.__subclasses__():
    BY_CODE[_class.code] = _class

KINDS: list[type[Error]] = [_class for _class in BY_CODE if _class is not Error]
for _class in [Error] + KINDS:
    _class.__module__ = "ceiba"
