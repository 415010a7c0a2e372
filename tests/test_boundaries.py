"""Imports point one way: the shells know the patterns, the patterns know the core, and nobody below knows Airflow.

Read from the source (every import statement, wherever it stands), and proven by importing the lower layers in a fresh
interpreter that refuses the forbidden packages.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_ai
from tests.support.processes import REPOSITORY

PACKAGE = "airflow_provider_ai"
ROOT = Path(airflow_provider_ai.__file__).parent
SHELLS = frozenset({"decorators", "hooks", "links", "operators", "plugin", "sensors", "triggers"})
EVERYONE = frozenset({"", "exceptions"})

# Layer → the layers of this package it may import, beside itself and EVERYONE.
MAY_IMPORT = {
    "": frozenset[str](),
    "exceptions": frozenset({"core"}),  # an annotation: an error may carry a report
    "get_provider_info": frozenset[str](),
    "core": frozenset[str](),
    "patterns": frozenset({"core"}),
    "adapters": frozenset({"core"}),
    "runtime": frozenset({"core", "patterns", "adapters"}),
    "worker": frozenset({"core", "patterns", "adapters", "runtime"}),
    "cli": frozenset({"core", "patterns", "adapters", "runtime", "worker"}),
    "testing": frozenset({"core", "patterns", "adapters", "runtime"}),
}

AIRFLOW_AND_CLIENTS = (
    "airflow",
    "boto3",
    "botocore",
    "confluent_kafka",
    "sqlalchemy",
    "duckdb",
    "psycopg",
    "aiohttp",
    "httpx",
    "requests",
)
NO_AIRFLOW = ("airflow",)

REFUSING_IMPORTS = """
import importlib, importlib.abc, pkgutil, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ImportError(f"{{name}} must not be imported here")

sys.meta_path.insert(0, Refuse())
module = importlib.import_module({module!r})
for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
    importlib.import_module(found.name)
    print(found.name)
"""


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_name(source: Path) -> str:
    parts = source.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str:
    """The first name below the package: ``core``, ``hooks``…; empty for the package itself."""
    return module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


def imports(source: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def layers() -> set[str]:
    return {layer_of(module_name(source)) for source in sources()}


def test_every_layer_is_known() -> None:
    """A new layer must say what it may import, and the layers of the design are there."""
    assert layers() <= set(MAY_IMPORT) | SHELLS
    assert {"core", "patterns", "adapters", "operators"} <= layers()


@pytest.mark.parametrize("source", sources(), ids=module_name)
def test_imports_point_one_way(source: Path) -> None:
    """No file imports a layer above its own; only the shells import Airflow."""
    layer = layer_of(module_name(source))
    if layer in SHELLS:
        return
    allowed = MAY_IMPORT[layer] | {layer} | EVERYONE
    wrong = [
        f"{source.name}:{line} imports {name}"
        for line, name in imports(source)
        if (name.partition(".")[0] == PACKAGE and _layer_imported(name) not in allowed)
        or name.partition(".")[0] == "airflow"
    ]
    assert wrong == []


def _layer_imported(name: str) -> str:
    layer = layer_of(name)
    return layer if (ROOT / layer).is_dir() or (ROOT / f"{layer}.py").is_file() else ""


def import_all(module: str, refused: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = REFUSING_IMPORTS.format(module=module, refused=set(refused))
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("layer", "refused"),
    [
        ("core", AIRFLOW_AND_CLIENTS),      # pure decisions
        ("patterns", AIRFLOW_AND_CLIENTS),  # written against ports
        ("adapters", NO_AIRFLOW),           # a worker fleet has no Airflow
        ("runtime", NO_AIRFLOW),
        ("cli", NO_AIRFLOW),                # nor has cron
    ],
)  # fmt: skip
def test_a_layer_imports_without_what_it_must_not_know(layer: str, refused: tuple[str, ...]) -> None:
    """Every submodule of the layer imports in an interpreter that refuses the forbidden packages."""
    done = import_all(f"{PACKAGE}.{layer}", refused)
    assert done.returncode == 0, done.stderr
    expected = {name for name in map(module_name, sources()) if name.startswith(f"{PACKAGE}.{layer}.")}
    assert sorted(expected ^ set(done.stdout.split())) == []


def test_the_refusal_itself_works() -> None:
    """The check above can fail: an Airflow shell does not import where airflow is refused."""
    done = import_all(f"{PACKAGE}.hooks", NO_AIRFLOW)
    assert done.returncode != 0
    assert "must not be imported here" in done.stderr
