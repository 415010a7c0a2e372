"""The package's source keeps foreign errors to itself: their text may quote a record."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_ai

PACKAGE = Path(airflow_provider_ai.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def foreign_causes(tree: ast.AST) -> Iterator[int]:
    """Lines where an error is raised with a cause, which a traceback prints."""
    for node in ast.walk(tree):
        cause = node.cause if isinstance(node, ast.Raise) else None
        if cause is not None and not (isinstance(cause, ast.Constant) and cause.value is None):
            yield node.lineno


def talkative_models(tree: ast.AST) -> Iterator[int]:
    """Lines of pydantic models and adapters whose errors would print their input."""
    for node in ast.walk(tree):
        model = isinstance(node, ast.ClassDef) and any(_name(base) == "BaseModel" for base in node.bases)
        adapter = isinstance(node, ast.Call) and _name(node.func) in ("TypeAdapter", "create_model", "validate_call")
        if (model or adapter) and "hide_input_in_errors=True" not in ast.unparse(node):
            yield node.lineno


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("scan", [foreign_causes, talkative_models])
def test_no_file_does_it(scan: object) -> None:
    """In the whole package."""
    found = [f"{file.relative_to(PACKAGE)}:{line}" for file in FILES for line in scan(ast.parse(file.read_text()))]  # type: ignore[operator]
    assert len(FILES) > 200
    assert found == []


def test_the_scans_see_it() -> None:
    """Samples of what they look for, and of what is right."""
    causes = "try:\n    f()\nexcept E as e:\n    raise X() from e\n"
    assert list(foreign_causes(ast.parse(causes))) == [4]
    assert list(foreign_causes(ast.parse(causes.replace("from e", "from None")))) == []
    model = "class M(pydantic.BaseModel):\n    model_config = ConfigDict(hide_input_in_errors={})\n"
    assert list(talkative_models(ast.parse(model.format("False")))) == [1]
    assert list(talkative_models(ast.parse(model.format("True")))) == []
    assert list(talkative_models(ast.parse("TypeAdapter(int)"))) == [1]
