"""[phi] and [redaction] in each kind of spec: read, checked, and handed to the runtime."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.cli.call_spec import load_call_spec
from airflow_provider_ai.cli.job_spec import load_job_spec
from airflow_provider_ai.cli.spec import load_batch_spec
from airflow_provider_ai.exceptions import SpecError
from tests.cli.specs import MINIMAL
from tests.cli.test_job_spec import WHOLE

CALL = """
[endpoint]
url = "http://127.0.0.1:8080"
protocol = "json"
model = "m"
[[fallback]]
kind = "static"
value = {}
"""
KEY = base64.b64encode(bytes(range(32))).decode()
ENVIRON = {"REDACTION_KEY": KEY}
TABLES = """
[phi]
enabled = true
redaction_key_env = "REDACTION_KEY"
[redaction]
mrn = "tokenise"
admitted = "year"
born = { rule = "birth-year", as_of = 2026-01-01 }
"""


def jobs(path: Path, environ: dict[str, str]) -> Any:
    return load_job_spec(path, environ=environ, redacts=True)


KINDS: dict[str, tuple[str, Callable[..., Any]]] = {
    "batch": (MINIMAL, lambda path, environ: load_batch_spec(path, environ=environ)),
    "call": (CALL, lambda path, environ: load_call_spec(path, environ=environ)),
    "jobs": (WHOLE, jobs),
}


def load(tmp_path: Path, kind: str, tables: str, environ: dict[str, str] | None = None) -> Any:
    text, loader = KINDS[kind]
    path = tmp_path / "spec.toml"
    path.write_text(text + tables)
    return loader(path, ENVIRON if environ is None else environ)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tables(tmp_path: Path, kind: str) -> None:
    """In any spec; a TOML date is one."""
    spec = load(tmp_path, kind, TABLES)
    assert spec.phi.on
    assert spec.redaction.columns == ("mrn", "admitted", "born")
    left = spec.redaction.apply({"admitted": "2024-02-03", "born": "1930-01-01"})
    assert left == {"admitted": "2024", "born": "90+"}


@pytest.mark.parametrize("kind", KINDS)
def test_without_them(tmp_path: Path, kind: str) -> None:
    """The switch is off, and nothing is redacted."""
    spec = load(tmp_path, kind, "", {})
    assert not spec.phi.on
    assert spec.redaction is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ("[phi]\nenabled = 1\n", r"'enabled' in \[phi\] must be true or false"),
        ("[phi]\nenable = true\n", r"did you mean 'enabled'"),
        ('[redaction]\nage = "ages"\n', r"\[redaction\] redaction of 'age' must be one of"),
        ('redaction = "age"\n', "redaction"),
        ('[redaction]\nmrn = "tokenise"\n', "tokenise needs a key"),
        ('[phi]\nredaction_key_env = "NONE"\n[redaction]\nmrn = "tokenise"\n', "'NONE', which is not set"),
    ],
)
def test_mistakes(tmp_path: Path, kind: str, tables: str, words: str) -> None:
    """Each is named with its table."""
    if not tables.startswith("["):
        tables = f"[phi]\n{tables}"
    with pytest.raises(SpecError, match=words):
        load(tmp_path, kind, tables)


def test_where_the_columns_are(tmp_path: Path) -> None:
    """In [input] of a batch, whole; in [phi] of a call; of jobs in [phi] or [endpoint]."""
    with pytest.raises(SpecError, match=r"must be in \[input\] here"):
        load(tmp_path, "batch", '[phi]\ncolumns = ["age"]\n')
    batch = load(tmp_path, "batch", "").input
    assert batch.columns is None
    text, loader = KINDS["batch"]
    path = tmp_path / "spec.toml"
    path.write_text(text.replace("[endpoint]", 'columns = ["visit_id", "age"]\n[endpoint]') + "[phi]\nenabled = true\n")
    assert loader(path, {}).input.columns == ("visit_id", "age")
    for kind in ("call", "jobs"):
        assert load(tmp_path, kind, '[phi]\ncolumns = ["age"]\n').columns == ("age",)
    path.write_text(WHOLE.replace('model = "m"', 'model = "m"\ncolumns = ["age"]'))
    assert load_job_spec(path).columns == ("age",)


def test_a_worker_needs_no_redaction_key(tmp_path: Path) -> None:
    """Requests come to it redacted; the rules are checked all the same."""
    path = tmp_path / "spec.toml"
    path.write_text(WHOLE + TABLES)
    assert load_job_spec(path, environ={}).redaction is None
    path.write_text(WHOLE + '[redaction]\nage = "ages"\n')
    with pytest.raises(SpecError, match="must be one of"):
        load_job_spec(path, environ={})
