"""How a command ends: an exit code, and for people what was wrong and what to do.

A message never quotes data: what the package raises on purpose carries none, and of what it did not foresee only the
class is shown.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_ai.exceptions import AIProviderError, SpecError

COMPLETE, FAILED, BAD_SPEC = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Endings:
    """What a command says of its errors.

    :param advice: class of error → what to do; the first that fits
    :param otherwise: what to do about every other one
    :param codes: class of error → exit code; 1 for every other one
    """

    advice: Sequence[tuple[type[AIProviderError], str]] = ()
    otherwise: str
    codes: Sequence[tuple[type[AIProviderError], int]] = ((SpecError, BAD_SPEC),)


def attempt(work: Callable[[], Any], endings: Endings, *, debug: bool) -> tuple[Any, int]:
    """What ``work`` returns and 0; or the counts an error carries (None without) and the code it stands for."""
    try:
        return work(), COMPLETE
    except AIProviderError as error:
        _say(str(error), _first(endings.advice, error, endings.otherwise), error if debug else None)
        return error.report, _first(endings.codes, error, FAILED)
    except KeyboardInterrupt:
        _say("interrupted", endings.otherwise, None)
    except Exception as error:  # noqa: BLE001 - foreign messages may quote data, so only the class is shown
        advice = f"--log-level debug shows the traceback, which may quote data; {endings.otherwise}"
        _say(f"unexpected {type(error).__name__}", advice, error if debug else None)
    return None, FAILED


def _first(table: Sequence[tuple[type[AIProviderError], Any]], error: AIProviderError, otherwise: Any) -> Any:
    return next((value for kind, value in table if isinstance(error, kind)), otherwise)


def _say(message: str, advice: str, error: BaseException | None) -> None:
    if error is not None:
        traceback.print_exception(error)
    print(f"error: {message}\n  {advice}", file=sys.stderr, flush=True)
