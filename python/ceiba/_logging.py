"""From the library's log events to `logging`: one daemon thread takes them from a bounded queue."""

from __future__ import annotations

import atexit

from . import _ceiba

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading

_thread: threading.Thread | None = None


def enable_logging(level: int | str = "INFO") -> None:
    """Forwards log events of this level and above to the loggers under `ceiba`.

    Each record is one line: control characters in it are escaped. Records that come faster than the
    handlers take them are dropped, counted, and told of in a warning.
    """
    global _thread
    import logging
    import threading

    if isinstance(level, str):
        number = logging.getLevelName(level.upper())
        if not isinstance(number, int):
            raise ValueError(f"unknown level {level!r}")
        level = number
    if isinstance(level, bool) or not isinstance(level, int):
        raise TypeError(f"a level is an int or a str, not {type(level).__name__}")
    if level < 0:
        raise ValueError(f"the level is negative: {level}")
    _ceiba._log_level(level)
    if _thread is None or not _thread.is_alive():
        # Before the handlers of `logging` are closed, which was registered when it was imported.
        from . import _at_exit

        atexit.unregister(_at_exit)
        atexit.register(_at_exit)
        _thread = threading.Thread(target=_forward, name="ceiba-log", daemon=True)
        _thread.start()


def disable_logging() -> None:
    """Forwards no more; returns when what was logged before has been told (waiting 2 s at most)."""
    global _thread
    thread, _thread = _thread, None
    if thread is not None:
        _ceiba._log_close()
        thread.join(2.0)


def _start() -> None:
    """In the child of a fork: the thread anew."""
    global _thread
    import threading

    _thread = threading.Thread(target=_forward, name="ceiba-log", daemon=True)
    _thread.start()


def _forward() -> None:
    import logging

    loggers: dict[str, logging.Logger] = {}
    ended = False
    while not ended:
        records, dropped, ended = _ceiba._log_take(256, 3600.0)
        for level, target, text, created in records:
            logger = loggers.get(target)
            if logger is None:
                name = target.replace("ceiba_core", "ceiba", 1).replace("::", ".")
                logger = loggers[target] = logging.getLogger(name)
            if logger.isEnabledFor(level):
                record = logger.makeRecord(logger.name, level, target, 0, text, (), None)
                record.created = created
                record.msecs = (created % 1) * 1000
                try:
                    logger.handle(record)
                except Exception:
                    # A handler's fault must not end the thread; `logging` has told of it where it can.
                    pass
        if dropped:
            logging.getLogger("ceiba").warning("%d log records were dropped", dropped)
