"""Commands in README and guides are ones: each parses, and each file that the README names is there."""

from __future__ import annotations

import re
import shlex

import pytest

from airflow_provider_ai.cli import _parser
from tests.support.processes import REPOSITORY

TEXTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMANDS = [
    (file.name, command)
    for file in TEXTS
    for line in re.findall(r"^\$ (.*)$", file.read_text(), flags=re.MULTILINE)
    for command in re.findall(r"airflow-ai [^|&>]+", re.split(r"\s#\s", line)[0])
]


@pytest.mark.parametrize(("file", "command"), COMMANDS, ids=[f"{file}-{n}" for n, (file, _) in enumerate(COMMANDS)])
def test_a_command_parses(file: str, command: str) -> None:
    """With every argument that it has in the text."""
    arguments = shlex.split(command)[1:]
    if "--help" not in arguments:
        _parser().parse_args(arguments)
        return
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args(arguments)
    assert ended.value.code == 0


def test_there_are_commands_to_look_at() -> None:
    """Of every pattern."""
    assert {shlex.split(command)[1] for _, command in COMMANDS} >= {
        *("batch", "call", "choose", "dispatcher", "dlq", "jobs", "queues", "store", "worker")
    }


def test_the_table_of_layers_names_files_that_are_there() -> None:
    """A file without a folder is in the folder of the one before it, or in that of its floor."""
    table = TEXTS[0].read_text().partition("## Pattern × layer")[2].partition("\n## ")[0]
    package, missing = REPOSITORY / "airflow_provider_ai", []
    for cell in re.split(r"[|;\n]", table):
        folder = package
        for name in re.findall(r"`([a-z_/]+(?:\.py)?)`", cell):
            first = name.partition("/")[0]
            if "/" in name:
                folder = (REPOSITORY if (REPOSITORY / first).is_dir() else package) / name.rpartition("/")[0]
            found = folder / name.rpartition("/")[2]
            if not (found.exists() or (package / "adapters" / name).exists()):
                missing.append(name)
    assert missing == []
