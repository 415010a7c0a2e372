"""Another reader of IAM policies, which knows AWS's actions, resources and conditions, finds nothing wrong."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ai.core.policies.iam import iam_policy
from airflow_provider_ai.core.policies.places import Account, Folder, Keys, Places
from airflow_provider_ai.core.policies.rights import RIGHTS
from airflow_provider_ai.core.policies.roles import Role
from tests.support import processes

pytestmark = pytest.mark.real
LINT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import parliament
found = [parliament.analyze_policy_string(json.dumps(policy)).findings for policy in json.load(sys.stdin)]
print(json.dumps([[finding.issue for finding in each] for each in found]))
"""
KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
FOLDERS = {name: Folder(bucket="data", prefix=name) for name in ("claims", "checkpoints", "input", "heads")}
QUEUES = {"requests": "in", "results": "out", "dead_letters": "dead"}


def policy(kind: Any, role: Role) -> dict[str, Any]:
    keys = Keys(ids=(KEY,), tenant="clinic-a", wrapped_hash_key=True)
    places = Places(kind=kind, queues=QUEUES, queue_key=KEY, keys=keys, **FOLDERS)
    return iam_policy(places, role, Account(number="123456789012", region="eu-central-1"))


def findings(policies: list[dict[str, Any]]) -> list[list[str]]:
    python = processes.side_environment("moto")
    done = subprocess.run(
        [python, "-c", LINT], input=json.dumps(policies), capture_output=True, text=True, timeout=120, check=True
    )
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def misspelled(statement: dict[str, Any]) -> None:
    statement["Action"] = ["sqs:SendMesage"]


def of_another_kind(statement: dict[str, Any]) -> None:
    statement["Resource"] = ["arn:aws:s3:::data"]


def under_no_condition(statement: dict[str, Any]) -> None:
    statement["Condition"] = {"StringEquals": {"sqs:Colour": "red"}}


def test_policies_hold_and_their_mutants_do_not() -> None:
    """All of them; then one with an action, a resource and a condition that do not exist, or not there."""
    policies = [policy(kind, role) for kind, role in RIGHTS]
    mutants: list[dict[str, Any]] = []
    changes: list[Callable[[dict[str, Any]], None]] = [misspelled, of_another_kind, under_no_condition]
    for change in changes:
        mutants.append(copy.deepcopy(policy("jobs", Role.SUBMITTER)))
        change(mutants[-1]["Statement"][0])
    found = findings([*policies, *mutants])
    assert found[: len(policies)] == [[]] * len(policies)
    assert all(found[len(policies) :])
