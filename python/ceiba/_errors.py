"""The exceptions: one class for each kind, all of them `ceiba.Error`."""

from __future__ import annotations

import builtins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class Part:
    """How one part of a send ended: an attempt of a retry, a member of a failover, a recipient of the message.

    `of` is "attempt", "member" or "recipient"; `name` the number of the attempt (a str, from "1"), the name of
    the member, or the recipient; `message_id` the other side's id, where it went well and there is one; `error`
    why it failed, `None` when it went well.
    """

    __slots__ = ("error", "message_id", "name", "of")

    def __init__(
        self, of: str, name: str, message_id: str | None = None, error: Error | None = None
    ) -> None:
        if of not in ("attempt", "member", "recipient"):
            raise ValueError(f"a part is of 'attempt', 'member' or 'recipient', not {of!r}")
        self.of = of
        self.name = name
        self.message_id = message_id
        self.error = error

    @property
    def ok(self) -> bool:
        """Whether it went well."""
        return self.error is None

    @property
    def details(self) -> dict[str, Any]:
        """All of it as JSON would have it, without the keys that have no value."""
        details: dict[str, Any] = {"of": self.of, "name": self.name}
        if self.message_id is not None:
            details["message_id"] = self.message_id
        if self.error is not None:
            details["error"] = self.error.details
        return details

    def __reduce__(self) -> tuple[type[Part], tuple[object, ...]]:
        return type(self), (self.of, self.name, self.message_id, self.error)

    def __repr__(self) -> str:
        ending = "sent" if self.error is None else self.error.kind
        return f"<ceiba.Part {self.of} {self.name!r} {ending}>"


class Error(Exception):
    """A call of ceiba failed.

    `kind` and `code` say what went wrong (the code is the number that the C library returns), `outcome`
    whether the message may have been sent ("not_sent" or "unknown"), `retryable` whether the same call may
    succeed later, `retry_after` the least seconds to wait before that, where the other side named them.
    `parts` are how each attempt, member or recipient ended, where there were several.
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
        parts: Iterable[Part] = (),
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.retryable = retryable
        self.retry_after = retry_after
        self.provider = provider
        self.attempts = attempts
        self.parts: tuple[Part, ...] = tuple(parts)

    @property
    def details(self) -> dict[str, Any]:
        """All of it as JSON would have it, without the keys that have no value; times are in milliseconds."""
        details: dict[str, Any] = {
            "kind": self.kind,
            "code": self.code,
            "outcome": self.outcome,
            "retryable": self.retryable,
            "attempts": self.attempts,
            "message": str(self),
        }
        if self.retry_after is not None:
            details["retry_after_ms"] = int(self.retry_after * 1000)
        if self.provider is not None:
            details["provider"] = self.provider
        if self.parts:
            details["parts"] = [part.details for part in self.parts]
        return details

    def __reduce__(self) -> tuple[type[Error], tuple[object, ...]]:
        return type(self), (
            str(self),
            self.outcome,
            self.retryable,
            self.retry_after,
            self.provider,
            self.attempts,
            self.parts,
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
Part.__module__ = "ceiba"
