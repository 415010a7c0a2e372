"""Names: the same for the same thing in every run and release, another for anything else."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.identity import (
    checkpoint_key,
    digest,
    endpoint_name,
    partition_label,
    record_key,
    scope_name,
)

COMPUTATION: dict[str, Any] = {
    "fingerprint": "f" * 32,
    "request": {"protocol": "json", "columns": ["a", "b"], "output_schema": None},
    "endpoint": {"url": "http://h", "protocol": "json", "model": "m", "path": None},
}


@pytest.mark.parametrize(
    ("record_id", "key"),
    [
        ("visit-17", "fbd1eb0e08e99f16d897cab517a554b7"),
        (17, "1a648f08deeb1c404dfe5156d990d9d6"),
        ("17", "43570e03145083ac0ecdf3aebe86cd67"),  # a text is not the number it looks like
    ],
)
def test_a_record_key_never_changes(record_id: object, key: str) -> None:
    """Warehouses join on it: a release that computed another key would orphan every row ever published."""
    assert record_key(record_id) == key


@given(st.lists(st.integers() | st.text() | st.binary() | st.booleans(), unique_by=lambda v: (type(v), v)))
def test_different_records_have_different_keys(ids: list[object]) -> None:
    """Across types too."""
    assert len({record_key(record_id) for record_id in ids}) == len(ids)


def test_a_secret_makes_the_keys_its_own() -> None:
    """Without the secret nobody can compute the key of an id they guess."""
    keys = {record_key("17"), record_key("17", secret=b"one"), record_key("17", secret=b"two")}
    assert len(keys) == 3
    with pytest.raises(ValueError, match="maximum key length"):
        record_key("17", secret=bytes(65))


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    """Canonical JSON: the same settings written in another order are the same settings."""
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest("a", "b") != digest("ab")
    assert digest("a", 1) == "135f17a475a61afdeeaf3759ad2e45ad"


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("fingerprint", "e" * 32),  # other input files
        ("request", {"columns": ["b", "a"]}),  # other question
        ("request", {"output_schema": {"type": "object"}}),  # other answers are valid
        ("request", {"temperature": 0.1}),  # a parameter more
        ("endpoint", {"model": "n"}),
        ("endpoint", {"url": "http://other"}),
        ("endpoint", {"path": "/v2"}),
    ],
)
def test_any_change_of_the_computation_starts_afresh(part: str, change: Any) -> None:
    """An answer is never reused for a question that was not asked."""
    changed = {**COMPUTATION, part: {**COMPUTATION[part], **change} if isinstance(change, dict) else change}
    assert checkpoint_key(**changed) != checkpoint_key(**COMPUTATION)
    assert checkpoint_key(**COMPUTATION) == checkpoint_key(**dict(reversed(COMPUTATION.items())))


@pytest.mark.parametrize(
    ("uri", "readable"),
    [
        ("s3://lake/visits/dt=2026-03-01/", "dt=2026-03-01"),
        ("s3://lake/visits/dt=2026-03-01", "dt=2026-03-01"),
        ("/data/visits/*.parquet", "visits"),  # the last part without a wildcard
        ("visits.csv", "visits.csv"),
        ("file:///data/süß & salzig.jsonl", "s-salzig.jsonl"),
        ("*", "input"),  # nothing readable at all
        ("/" + "x" * 300, "x" * 40),
    ],
)
def test_a_scope_is_readable_and_safe(uri: str, readable: str) -> None:
    """It stands in a column and in messages: a tail of the URI, no odd characters, and 8 hex digits."""
    name = scope_name(uri, "id")
    assert re.fullmatch(re.escape(readable) + "-[0-9a-f]{8}", name) or name.startswith(readable)
    assert re.fullmatch(r"[A-Za-z0-9=._-]{1,49}", name)


def test_scopes_of_different_inputs_never_meet() -> None:
    """Two inputs that share a tail must not replace each other's rows."""
    scopes = [
        scope_name(uri, column)
        for uri, column in itertools.product(("s3://a/dt=1", "s3://b/dt=1", "s3://a/dt=2"), ("id", "key"))
    ]
    assert len(set(scopes)) == 6


def test_a_partition_label_names_scope_plan_and_number() -> None:
    """Sorted as text they are in order, up to the most partitions there can be."""
    labels = [partition_label("visits-0a", "f" * 32, index) for index in (0, 9, 10, 1023)]
    assert labels[0] == "visits-0a/ffffffff/00000"
    assert labels == sorted(labels)


def test_an_endpoint_name_is_readable_and_holds_no_secret() -> None:
    """Host, port, model and a digest; the key is no part of it, the path is."""
    made = [
        EndpointSettings(
            url="https://models.example:8443", protocol="json", model="org/triage v2", api_key=key, path=path
        )
        for key, path in (("one", None), ("two", None), ("one", "/other"))
    ]
    first, second, third = map(endpoint_name, made)
    assert re.fullmatch(r"models\.example:8443/org-triage-v2-[0-9a-f]{8}", first)
    assert first == second
    assert first != third
