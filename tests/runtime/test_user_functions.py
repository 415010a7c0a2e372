"""Functions that a setting names: found, or said why not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_provider_ai.cli.user_modules import look_beside
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.runtime.user_functions import imported


@pytest.mark.parametrize("path", ["os.path:join", "os.path.join"])
def test_a_function_by_its_path(path: str) -> None:
    """With a colon or without."""
    assert imported(path, setting="target") is __import__("os").path.join


def test_a_method_of_a_class() -> None:
    """Behind a colon there may be dots."""
    assert imported("pathlib:Path.home", setting="target") == Path.home


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module:f", "cannot be imported (ModuleNotFoundError"),
        ("os:no_such_function", "cannot be imported (AttributeError"),
        ("no_dot", "cannot be imported (ValueError"),
        ("os:name", "must be a function, got 'str'"),
        ("broken_beside_the_spec:f", "cannot be imported: its module raised ZeroDivisionError"),
    ],
)
def test_what_cannot_be_called(path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting and the path are named."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken_beside_the_spec.py").write_text("1 / 0")
    look_beside(str(tmp_path / "spec.toml"))
    with pytest.raises(SpecError) as caught:
        imported(path, setting="[handler] target")
    assert str(caught.value).startswith(f"[handler] target {path!r} ")
    assert words in str(caught.value)


def test_what_is_installed_comes_before_what_lies_beside_a_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is named like a module of others is not loaded in its place; nor is a folder added twice."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        look_beside("spec.toml")
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)
