"""The handler that does nothing, as each kind of worker calls it."""

from __future__ import annotations

from typing import Any

ANSWER = {"ok": True}


async def handle(job: Any) -> dict[str, Any]:
    """Answer a job."""
    return ANSWER


def answer(number: int, text: str) -> dict[str, Any]:
    """Answer a request given as arguments."""
    return ANSWER
