"""What is answered when the endpoint does not: a chain of links, tried in order, that always ends in a static value.

The last link needs no I/O and cannot fail, so there is an answer whatever happens. Each link that does I/O is promised
some of the deadline: the endpoint, and the links before it, must have ended by then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from airflow_provider_ai.core.call_settings import FLOOR_SECONDS, seconds_of
from airflow_provider_ai.core.config import EndpointSettings, is_number, require
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.exceptions import SpecError

_IMPORT_STRING = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")
_CALLABLE_SECONDS = 0.25
_ENDPOINT_SHARE = 0.3  # of the deadline, for one link; several share _ENDPOINTS_SHARE
_ENDPOINTS_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Static:
    """A fixed answer: the floor of every chain.

    :param value: plain JSON, such as ``{"priority": "routine"}``; each answer gets a copy of its own
    """

    value: Any
    _text: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_text", orjson.dumps(self.value))
        except (TypeError, RecursionError):
            raise SpecError("the value of Static must hold plain JSON values only") from None

    def copy(self) -> Any:
        """The value, for a caller to keep and change."""
        return orjson.loads(self._text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastGood:
    """The endpoint's own last answer to the same input, if it is not too old. Fallback answers are never kept.

    :param max_age: a ``timedelta``, or seconds
    """

    max_age: timedelta | float

    def __post_init__(self) -> None:
        seconds = seconds_of(self.max_age)
        require(is_number(seconds) and seconds > 0, "max_age of LastGood must be a time > 0", self.max_age)

    @property
    def max_age_seconds(self) -> float:
        """As seconds."""
        return float(seconds_of(self.max_age))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Another endpoint: a cheaper or a local model. It has a circuit breaker and a bulkhead of its own.

    :param target: an Airflow connection of type ``ai_endpoint``, or :class:`EndpointSettings`
    :param request: when this endpoint is asked in another way; ``None`` for the call's own request
    :param reserve_seconds: time promised to it; ``None`` for 30 % of the deadline (several share half of it)
    """

    target: str | EndpointSettings
    request: Request | None = None
    reserve_seconds: float | None = None

    def __post_init__(self) -> None:
        named = isinstance(self.target, EndpointSettings) or (isinstance(self.target, str) and bool(self.target))
        require(named, "Endpoint must name a connection or be given EndpointSettings", type(self.target).__name__)
        _check_reserve("Endpoint", self.reserve_seconds)


@dataclass(frozen=True, slots=True)
class Callable:
    """Your own function: ``function(inputs) -> output``. It is left behind when its time is over.

    :param path: import string, ``package.module:function`` or ``package.module.function``
    :param reserve_seconds: time promised to it; ``None`` for 0.25 s
    """

    path: str
    reserve_seconds: float | None = None

    def __post_init__(self) -> None:
        is_path = isinstance(self.path, str) and _IMPORT_STRING.fullmatch(self.path) is not None
        require(is_path, "Callable must be given an import string such as 'package.module:function'", self.path)
        _check_reserve("Callable", self.reserve_seconds)


Link = Static | LastGood | Endpoint | Callable


def _check_reserve(what: str, seconds: float | None) -> None:
    ok = seconds is None or (is_number(seconds) and seconds > 0)
    require(ok, f"reserve_seconds of {what} must be a number > 0 (seconds) or absent", seconds)


def check_chain(chain: object) -> tuple[Link, ...]:
    """The chain as a tuple; SpecError unless it is one that always has an answer."""
    if isinstance(chain, Link):
        chain = (chain,)
    is_list = isinstance(chain, Sequence) and not isinstance(chain, str | bytes)
    links: tuple[Any, ...] = tuple(chain) if is_list else ()  # type: ignore[arg-type]
    if not links:
        raise SpecError(
            "fallback must be a list of links that ends in Static(…): a call without one takes its caller down with it"
        )
    strangers = [type(link).__name__ for link in links if not isinstance(link, Link)]
    require(not strangers, "fallback must hold Static, LastGood, Endpoint and Callable only", strangers)
    if not isinstance(links[-1], Static):
        raise SpecError(
            f"fallback must end in Static(…), which cannot fail, got {type(links[-1]).__name__} as the last link"
        )
    early = [type(link).__name__ for link in links[:-1] if isinstance(link, Static)]
    require(not early, "fallback must hold one Static, as its last link (nothing after it is ever reached)", early)
    return links


def reserves(chain: Sequence[Link], *, deadline_seconds: float, store_timeout_seconds: float) -> tuple[float, ...]:
    """Seconds promised to each link; SpecError when they leave nothing for the endpoint."""
    endpoints = sum(isinstance(link, Endpoint) for link in chain)
    share = min(_ENDPOINT_SHARE, _ENDPOINTS_SHARE / endpoints) if endpoints else 0.0

    def promised(link: Link) -> float:
        if isinstance(link, Endpoint):
            return share * deadline_seconds if link.reserve_seconds is None else link.reserve_seconds
        if isinstance(link, Callable):
            return _CALLABLE_SECONDS if link.reserve_seconds is None else link.reserve_seconds
        return store_timeout_seconds if isinstance(link, LastGood) else FLOOR_SECONDS

    promises = tuple(map(promised, chain))
    if sum(promises) >= deadline_seconds:
        raise SpecError(
            f"the fallbacks are promised {sum(promises):g} s together, which leaves nothing of the deadline of "
            f"{deadline_seconds:g} s for the endpoint: shorten their reserve_seconds or drop a link"
        )
    return promises


def cutoffs(deadline_seconds: float, promises: Sequence[float]) -> tuple[float, ...]:
    """When the endpoint and then each link must have ended: seconds from the start, rising to the deadline.

    The first is the endpoint's. A link that begins early keeps the time it gained.
    """
    ends = [deadline_seconds]
    for promise in reversed(promises):
        ends.append(ends[-1] - promise)
    return tuple(reversed(ends))
