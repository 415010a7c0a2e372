"""Keeps payloads out of what this package logs: the last line of defence, for what nobody should have logged.

A handler on the package's logger, and not a filter: a filter sees the records of its own logger only, while a record on
its way up passes the handlers of every logger above the one it was made with, and this one before those of the root. It
writes nothing; it takes out of the record what may be data. Messages themselves are constants of this package.
"""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import PurePath
from typing import Any

from airflow_provider_ai.exceptions import AIProviderError

PACKAGE = "airflow_provider_ai"
LONGEST_TEXT = 500
"""Names, paths and our own sentences are shorter; a note about a patient rarely is."""
_PLAIN = (bool, numbers.Number, date, timedelta, PurePath, type(None))


class PayloadFreeHandler(logging.Handler):
    """Withholds arguments that look like payloads, and the text and traceback of errors that are not ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Change the record in place; the handlers above it see what is left."""
        if record.args:
            record.args = _shown_arguments(record.args, named="%(" in str(record.msg))
        if not isinstance(record.msg, str):
            record.msg, record.args = _shown(record.msg), ()
        elif len(record.msg) > LONGEST_TEXT and not record.args:
            record.msg = f"<withheld: a text of {len(record.msg)} characters>"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, AIProviderError):
            record.msg = f"{record.msg} <{type(error).__name__}, its text withheld>"
            record.exc_info = record.exc_text = None


def keep_payloads_out_of_logs() -> None:
    """From now on in this process. Once is enough."""
    logger = logging.getLogger(PACKAGE)
    if not any(isinstance(handler, PayloadFreeHandler) for handler in logger.handlers):
        logger.addHandler(PayloadFreeHandler())


def _shown_arguments(arguments: Any, *, named: bool) -> Any:
    """logging takes a single mapping for named arguments, also where it is the one argument of a ``%s``."""
    if isinstance(arguments, Mapping):
        return {name: _shown(value) for name, value in arguments.items()} if named else (_shown(arguments),)
    return tuple(map(_shown, arguments))


def _shown(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else f"<withheld: a text of {len(value)} characters>"
    if isinstance(value, AIProviderError):
        return str(value)
    return f"<withheld: {type(value).__name__}>"
