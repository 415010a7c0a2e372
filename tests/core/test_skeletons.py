"""The DAG skeletons: valid, formatted Python that says what the needs say."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.choosing_rules import PATTERNS, Pattern
from airflow_provider_ai.core.needs import EFFECTS, LONGEST_SECONDS, SHORTEST_SECONDS, Effect, Needs
from airflow_provider_ai.core.skeletons import skeleton
from tests.support.processes import REPOSITORY

VARIANTS = list(itertools.product(PATTERNS, EFFECTS, (False, True)))


def made(pattern: Pattern, effect: Effect, phi: bool, latency: float = 3, freshness: float = 60) -> str:
    return skeleton(
        pattern, Needs(latency_seconds=latency, volume=1, freshness_seconds=freshness, effect=effect, phi=phi)
    )


def test_every_skeleton_is_python_in_the_style_of_this_repository(tmp_path: Path) -> None:
    """It is linted and formatted like the rest."""
    for pattern, effect, phi in VARIANTS:
        text = made(pattern, effect, phi)
        compile(text, "<skeleton>", "exec")
        (tmp_path / f"{pattern}_{effect.replace('-', '_')}_{phi}.py").write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--config", str(REPOSITORY / "pyproject.toml"), "--no-cache"]
    for command in (["check", "--ignore", "TID251", *options], ["format", "--diff", *options]):
        done = subprocess.run([*ruff, *command, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@given(
    st.sampled_from(VARIANTS),
    st.floats(SHORTEST_SECONDS, LONGEST_SECONDS),
    st.floats(SHORTEST_SECONDS, LONGEST_SECONDS),
)
def test_no_needs_break_a_skeleton(variant: tuple[Pattern, Effect, bool], latency: float, freshness: float) -> None:
    """Numbers of any size stay Python, and no placeholder is left."""
    text = made(*variant, latency, freshness)
    ast.parse(text)
    assert "$" not in text


@pytest.mark.parametrize("phi", [False, True])
def test_the_synchronous_skeleton_takes_deadline_and_age_from_the_needs(phi: bool) -> None:
    """And ends its fallbacks in a static answer."""
    text = made("sync", "read", phi, latency=2.5, freshness=3600)
    assert "deadline=timedelta(seconds=2.5)" in text
    assert "fallback=[LastGood(max_age=timedelta(seconds=3600)), Static(" in text
    assert "deadline=timedelta(seconds=5)" in made("sync", "read", phi, latency=60)  # a longer one is refused


def test_with_phi_a_run_is_given_a_reference() -> None:
    """Params and templates are stored in Airflow's database."""
    assert "{{ params.age }}" in made("sync", "read", phi=False)
    with_phi = made("sync", "read", phi=True)
    assert "{{ params.reference }}" in with_phi
    assert "params.age" not in with_phi


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_write_to_the_record_stands_apart_and_has_a_key(pattern: Pattern) -> None:
    """A retry must not write twice, and degraded answers go to a person."""
    read, write = made(pattern, "read", phi=True), made(pattern, "ehr-write", phi=True)
    assert "write_to_ehr" not in read
    assert "def write_to_ehr" in write
    assert "if nothing is there yet" in write
    assert ("def human_review" in write) == (pattern != "batch")  # a batch has its quarantine


@pytest.mark.parametrize("phi", [False, True])
def test_the_asynchronous_skeleton_takes_its_deadline_from_the_needs(phi: bool) -> None:
    """And is given a reference with PHI or without: what a job needs is read where it is done."""
    text = made("async", "read", phi, latency=600)
    assert "job_deadline=timedelta(seconds=600)" in text
    assert "nothing about a person stands in params" in text
