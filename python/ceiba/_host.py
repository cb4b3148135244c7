"""Calls a host's sender: plain functions at once, coroutine functions in a loop of their own."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any


def run(sender: Any, message: Any) -> str | None:
    sent = sender(message)
    if inspect.isawaitable(sent):

        async def awaited() -> Any:
            return await sent

        sent = asyncio.run(awaited())
    return None if sent is None else str(sent)
