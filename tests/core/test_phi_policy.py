"""The PHI switch: whoever turns it on turns it on for all, and all that is missing is told at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from airflow_provider_ai.core.config import EndpointSettings, StorageOptions
from airflow_provider_ai.core.job_settings import WebhookSettings
from airflow_provider_ai.core.phi_policy import ENVIRONMENT_VARIABLE, Phi, PhiFacts, refusals, require_protected
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import PhiPolicyError, SpecError

ENDPOINT = EndpointSettings(url="https://models.example.org", protocol="json", model="m")
QUEUES = {"request_queue": "a", "result_queue": "b", "dead_letter_queue": "c"}
SQS = TransportSettings(kind="sqs", **QUEUES)
KAFKA = TransportSettings(kind="kafka", bootstrap_servers="broker.example.org:9093", **QUEUES)
STORE = "postgresql://ai:s3cr3t@db.example.org/ai?sslmode=verify-full"
SECRET = "whsec_" + "A" * 40
GUARDED = Phi(on=True, encryption=True, audit="fail-closed")
RIGHT = PhiFacts(
    phi=GUARDED,
    endpoints={"endpoint": ENDPOINT, "fallback endpoint 1": ENDPOINT},
    transport=SQS,
    webhook=WebhookSettings(url="https://hooks.example.org", secret=SECRET),
    databases={"store": STORE, "sink": "duckdb:////var/lib/warehouse.duckdb"},
    folders={"dataset": "s3://data/notes", "checkpoint": "/var/lib/checkpoints"},
    records=True,
    columns=("age", "note"),
    asked=("note",),
)


def test_everything_protected() -> None:
    """A task with all of it may run, and it is known that PHI is handled."""
    assert refusals(RIGHT) == ()
    assert require_protected(RIGHT)


WRONG: dict[str, dict[str, Any]] = {
    "an endpoint in clear": {"endpoints": {"endpoint": replace(ENDPOINT, url="http://models.example.org")}},
    "a fallback in clear": {
        "endpoints": {"endpoint": ENDPOINT, "fallback endpoint 1": replace(ENDPOINT, url="http://b.example.org")}
    },
    "an endpoint unverified": {"endpoints": {"endpoint": replace(ENDPOINT, verify_tls=False)}},
    "gRPC in clear": {
        "endpoints": {
            "endpoint": EndpointSettings(url="grpc://models.example.org:1", protocol="open-inference-grpc", model="m")
        }
    },
    "SQS in clear": {"transport": replace(SQS, endpoint_url="http://sqs.example.org", allow_plaintext=True)},
    "plaintext allowed": {"transport": replace(SQS, allow_plaintext=True)},
    "Kafka in clear": {"transport": replace(KAFKA, security_protocol="plaintext", allow_plaintext=True)},
    "a store that verifies nothing": {"databases": {"store": "postgresql://db.example.org/ai?sslmode=require"}},
    "a sink that verifies nothing": {"databases": {"store": STORE, "sink": "postgresql://db.example.org/ai"}},
    "S3 in clear": {"storage": StorageOptions(endpoint_url="http://s3.example.org")},
    "KMS in clear": {"services": {"KMS": "http://kms.example.org"}},
    "an AWS endpoint of the environment": {"environ": {"AWS_ENDPOINT_URL_KMS": "http://kms.example.org"}},
    "no columns": {"columns": None},
    "more than the columns": {"asked": ("note", "name")},
    "through Airflow": {"through_airflow": ("inputs are the output of another task",)},
    "no encryption": {"phi": replace(GUARDED, encryption=False)},
    "no audit": {"phi": replace(GUARDED, audit="none")},
    "an audit that fails open": {"phi": replace(GUARDED, audit="fail-open")},
}


@pytest.mark.parametrize("case", WRONG)
def test_one_thing_missing(case: str) -> None:
    """Each is refused alone, with what to do; without the switch none is."""
    facts = replace(RIGHT, **WRONG[case])
    with pytest.raises(PhiPolicyError, match="nothing was sent") as caught:
        require_protected(facts)
    assert len(caught.value.refusals) >= 1
    assert "s3cr3t" not in str(caught.value)
    off = replace(facts, phi=replace(facts.phi, on=False))
    assert refusals(off) == ()
    assert not require_protected(off)


def test_all_of_it_at_once() -> None:
    """Two things that are wrong are two refusals, whichever they are."""
    for one, other in combinations(WRONG, 2):
        if WRONG[one].keys() & WRONG[other].keys() or {one, other} == {"no columns", "more than the columns"}:
            continue  # these cannot be wrong together
        both = refusals(replace(RIGHT, **WRONG[one], **WRONG[other]))
        apart = (*refusals(replace(RIGHT, **WRONG[one])), *refusals(replace(RIGHT, **WRONG[other])))
        assert set(map(str, both)) == set(map(str, apart)), (one, other)


@pytest.mark.parametrize(
    "change",
    [
        {"endpoints": {"endpoint": replace(ENDPOINT, phi=True)}},
        {"endpoints": {"endpoint": ENDPOINT, "fallback endpoint 1": replace(ENDPOINT, phi=True)}},
        {"transport": replace(SQS, phi=True)},
        {"environ": {ENVIRONMENT_VARIABLE: "True"}},
        {"phi": Phi(on=True)},
    ],
)
def test_any_party_turns_it_on_for_all(change: dict[str, Any]) -> None:
    """Who else is silent, or says no, changes nothing."""
    assert refusals(replace(RIGHT, **{"phi": Phi(on=False), **change}))


@pytest.mark.parametrize("word", ["treu", "2", "y es"])
def test_a_word_that_is_neither(word: str) -> None:
    """A switch that cannot be read is not off."""
    with pytest.raises(SpecError, match=f"{ENVIRONMENT_VARIABLE} must be true or false"):
        refusals(replace(RIGHT, environ={ENVIRONMENT_VARIABLE: word}))


def test_while_parsing() -> None:
    """What connections and keys say is not known then; what the DAG says is."""
    unknown = replace(RIGHT, phi=Phi(on=True))
    assert refusals(unknown, parsing=True) == ()
    assert len(refusals(unknown)) == 2
    assert refusals(replace(unknown, columns=None), parsing=True)


@pytest.mark.parametrize(
    ("setting", "value"), [("on", 1), ("on", "yes"), ("encryption", "aes"), ("audit", "closed"), ("audit", None)]
)
def test_a_switch_that_cannot_be_right(setting: str, value: object) -> None:
    """A truthy word is no switch."""
    with pytest.raises(SpecError, match="must be"):
        Phi(**{setting: value})
