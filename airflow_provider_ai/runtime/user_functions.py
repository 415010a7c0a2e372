"""Functions of the user's that a setting names: a worker's handler, the last resort of a synchronous call."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from airflow_provider_ai.core.config import require
from airflow_provider_ai.exceptions import SpecError


def imported(path: str, *, setting: str) -> Callable[..., Any]:
    """The function that ``module:function``, or ``module.function``, names.

    :param setting: what names it, for messages
    :raises SpecError: when it cannot be imported, or is no function
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"{setting} {path!r} cannot be imported ({type(error).__name__}: {error})") from None
    except Exception as error:  # noqa: BLE001 - whatever the user's module raises
        raise SpecError(f"{setting} {path!r} cannot be imported: its module raised {type(error).__name__}") from None
    require(callable(found), f"{setting} {path!r} must be a function", type(found).__name__)
    return found  # type: ignore[no-any-return]
