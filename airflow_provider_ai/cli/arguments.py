"""What the arguments of all commands have in common. The standard library only: ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Handler = Callable[[argparse.Namespace, Any], int]
"""Carries out a command: its arguments, and the runtime to use (None for the real one) → the exit code."""

AS_WRITTEN = argparse.RawDescriptionHelpFormatter


def add_command(
    commands: Any, name: str, description: str, epilog: str, *, handler: Handler | None = None
) -> argparse.ArgumentParser:
    """A command below ``commands``; one without a handler has commands of its own.

    :param commands: what ``ArgumentParser.add_subparsers`` returns
    """
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=description, description=description, epilog=epilog, formatter_class=AS_WRITTEN
    )
    if handler is not None:
        command.set_defaults(handler=handler)
    return command


def add_log_level(command: argparse.ArgumentParser) -> None:
    """``--log-level``, for commands that log."""
    levels = ("debug", "info", "warning", "error")
    text = "what is logged to stderr (default: info); debug adds tracebacks, which may quote data"
    command.add_argument("--log-level", choices=levels, default="info", metavar="LEVEL", help=text)
