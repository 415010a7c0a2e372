"""What the answer to a webhook's delivery means: delivered, to be tried again, or never to be taken."""

from __future__ import annotations

from dataclasses import dataclass

_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """How a delivery went.

    :param done: the receiver has it
    :param again: another delivery may be taken
    :param detail: for people, without data
    """

    done: bool = False
    again: bool = False
    detail: str = ""
    retry_after_seconds: float | None = None


def judge_delivery(status: int, *, retry_after_seconds: float | None = None) -> Delivered:
    """2xx only is delivered. A redirect is a receiver that is set up elsewhere: that takes a person."""
    if 200 <= status < 300:
        return Delivered(done=True)
    again = status >= 500 or status in _AGAIN
    return Delivered(again=again, detail=f"HTTP {status}", retry_after_seconds=retry_after_seconds)


def judge_failure(error_class: str) -> Delivered:
    """A delivery without an answer."""
    return Delivered(again=True, detail=error_class)
