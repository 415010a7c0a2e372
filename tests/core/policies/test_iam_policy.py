"""IAM policies: conditions, and what must be known before one is made. Requests are those that the adapters make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ai.adapters.crypto.kms_keys import KmsKeyWrapper
from airflow_provider_ai.adapters.crypto.wrapping import binding_of
from airflow_provider_ai.core.key_settings import KmsKeys
from airflow_provider_ai.core.policies.iam import PACKAGE, iam_policy
from airflow_provider_ai.core.policies.places import Account, Folder, Keys, Places
from airflow_provider_ai.core.policies.rights import RIGHTS
from airflow_provider_ai.core.policies.roles import ROLES, Kind, Role
from airflow_provider_ai.core.purposes import PURPOSES
from airflow_provider_ai.exceptions import SpecError
from tests.support.iam_rules import permits

ACCOUNT = Account(number="123456789012", region="eu-central-1")
KEY, OLDER, OTHER, QUEUE = (
    f"arn:aws:kms:eu-central-1:123456789012:key/{digit * 8}-2222-3333-4444-555555555555" for digit in "1234"
)
DATA = "arn:aws:s3:::data"
QUEUES = {"requests": "in", "results": "out", "dead_letters": "dead"}
AT_AWS = [(kind, role) for kind in ROLES for role in ROLES[kind] if (kind, role) in RIGHTS]
# Role → purposes whose data keys it makes, and those that it unwraps. It must not for any other.
KEYS: dict[tuple[Kind, str], tuple[set[str], set[str]]] = {
    ("jobs", "submitter"): ({"checkpoint", "job-payload"}, {"checkpoint", "hash-key", "job-payload", "job-result"}),
    ("jobs", "worker"): ({"job-result"}, {"hash-key", "job-payload"}),
    ("jobs", "dispatcher"): ({"dead-letter"}, {"hash-key"}),
    ("jobs", "operator"): ({"dead-letter"}, {"dead-letter", "hash-key"}),
    ("batch", "batch"): ({"checkpoint"}, {"checkpoint", "hash-key"}),
    ("batch", "reader"): (set(), {"checkpoint", "hash-key"}),
    ("call", "caller"): ({"good-answer", "output"}, {"good-answer", "hash-key", "output"}),
}


def places(kind: Kind = "jobs", **changes: Any) -> Places:
    keys = Keys(ids=(KEY, OLDER), tenant="clinic-a", wrapped_hash_key=True)
    folders = {name: Folder(bucket="data", prefix=name) for name in ("checkpoints", "input", "claims")}
    heads = Folder(bucket="locked", prefix="")
    made = Places(kind=kind, queues=QUEUES, queue_key=QUEUE, keys=keys, heads=heads, **folders)
    return replace(made, **changes)


def policy(role: Role, kind: Kind = "jobs", **changes: Any) -> dict[str, Any]:
    return iam_policy(places(kind, **changes), role, ACCOUNT)


class Recorder:
    """A client of KMS that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def __getattr__(self, action: str) -> Callable[..., dict[str, Any]]:
        def call(**parameters: Any) -> dict[str, Any]:
            self.asked = parameters
            return {"Plaintext": b"p" * 32, "KeyId": KEY, "CiphertextBlob": b"c"}

        return call


def context_of(asked: dict[str, str]) -> dict[str, Any]:
    """The condition keys of a request with this encryption context."""
    return {
        **{f"kms:EncryptionContext:{name}": value for name, value in asked.items()},
        "kms:EncryptionContextKeys": list(asked),
    }


@pytest.mark.parametrize(("kind", "role"), AT_AWS, ids=str)
def test_data_keys_are_made_and_unwrapped_for_a_role_s_own_purposes(kind: Kind, role: Role) -> None:
    """What the product asks of KMS, per purpose: allowed to those whose it is, refused to all others."""
    client = Recorder()
    wrapper = KmsKeyWrapper(KmsKeys(key_id=KEY, older_key_ids=(OLDER,), hash_key=b"h" * 32), client)
    made, unwrapped = set(), set()
    for purpose in PURPOSES:
        wrapper.make(binding_of("clinic-a", purpose))
        context = context_of(client.asked["EncryptionContext"])
        if permits(policy(role, kind), "kms:GenerateDataKey", client.asked["KeyId"], context):
            made.add(purpose)
        assert not permits(policy(role, kind), "kms:GenerateDataKey", OLDER, context)
        wrapper.unwrap(OLDER, b"c", binding_of("clinic-a", purpose))
        context = context_of(client.asked["EncryptionContext"])
        if permits(policy(role, kind), "kms:Decrypt", client.asked["KeyId"], context):
            unwrapped.add(purpose)
        assert not permits(policy(role, kind), "kms:Decrypt", OTHER, context)
    assert (made, unwrapped) == KEYS.get((kind, role.value), (set(), set()))


@pytest.mark.parametrize(("kind", "role"), AT_AWS, ids=str)
def test_only_a_rotator_wraps_anew(kind: Kind, role: Role) -> None:
    """From every key to the current one, in the same encryption context; and it unwraps nothing."""
    client = Recorder()
    KmsKeyWrapper(KmsKeys(key_id=KEY, older_key_ids=(OLDER,), hash_key=b"h" * 32), client).wrap_anew(
        OLDER, b"c", binding_of("clinic-a", "job-result")
    )
    source, target = (context_of(client.asked[f"{which}EncryptionContext"]) for which in ("Source", "Destination"))
    may = policy(role, kind)
    assert permits(may, "kms:ReEncryptFrom", client.asked["SourceKeyId"], source) is (role is Role.ROTATOR)
    assert permits(may, "kms:ReEncryptTo", client.asked["DestinationKeyId"], target) is (role is Role.ROTATOR)
    assert not permits(may, "kms:ReEncryptTo", OLDER, target)


@pytest.mark.parametrize(
    "changed",
    [
        {"tenant": "clinic-b"},
        {"purpose": "job-result"},
        {"package": "another"},
        {"and": "more"},
        {"tenant": None},
        {"package": None, "tenant": None, "purpose": None},
    ],
    ids=str,
)
def test_another_encryption_context_is_refused(changed: dict[str, str | None]) -> None:
    """Another tenant's, another purpose's, one with less or more in it, and none."""
    right = binding_of("clinic-a", "job-payload")
    wrong = {name: value for name, value in {**right, **changed}.items() if value is not None}
    assert permits(policy(Role.WORKER), "kms:Decrypt", KEY, context_of(right))
    assert not permits(policy(Role.WORKER), "kms:Decrypt", KEY, context_of(wrong))


@pytest.mark.parametrize(("kind", "role"), AT_AWS, ids=str)
def test_nothing_goes_without_tls(kind: Kind, role: Role) -> None:
    """Every allowed action on every allowed resource is denied over http, also where another policy allows it."""
    may = policy(role, kind)
    broader = {"Effect": "Allow", "Action": [], "Resource": []}
    for statement in may["Statement"][:-1]:
        broader["Action"] += statement["Action"]
        broader["Resource"] += statement["Resource"]
    both = {"Statement": [*may["Statement"], broader]}
    for statement in may["Statement"][:-1]:
        for action in statement["Action"]:
            for resource in statement["Resource"]:
                assert permits(both, action, resource)
                assert not permits(both, action, resource, {"aws:SecureTransport": "false"})


@pytest.mark.parametrize(("kind", "role"), AT_AWS, ids=str)
def test_actions_have_no_wildcard_and_resources_only_at_the_end_of_a_folder(kind: Kind, role: Role) -> None:
    """ARNs are whole: partition, region, account; only an object's name may be open, below a folder."""
    shapes = (
        r"arn:aws:sqs:eu-central-1:123456789012:(in|out|dead)",
        r"arn:aws:kms:eu-central-1:123456789012:key/[1-4]{8}-2222-3333-4444-555555555555",
        r"arn:aws:s3:::data",
        r"arn:aws:s3:::data/(claims|checkpoints|input)/?[a-z]*[/-]?\*?",
        r"arn:aws:s3:::data/input",
        r"arn:aws:s3:::locked(/\*)?",
    )
    for statement in policy(role, kind)["Statement"]:
        assert all(re.fullmatch(r"(sqs|s3|kms):[A-Za-z]+", action) for action in statement["Action"])
        for resource in statement["Resource"]:
            assert any(re.fullmatch(shape, resource) for shape in shapes), resource


def test_listing_is_of_a_role_s_own_folder() -> None:
    """And a missing object of that folder is told from a refused one: S3 takes its name for the prefix."""
    may = policy(Role.WORKER)
    for prefix in ("claims/payload/", "claims/payload/a"):
        assert permits(may, "s3:ListBucket", DATA, {"s3:prefix": prefix})
    for prefix in ("claims/result/", "claims/", ""):
        assert not permits(may, "s3:ListBucket", DATA, {"s3:prefix": prefix})
    assert not permits(may, "s3:ListBucket", DATA)
    whole = iam_policy(Places(kind="batch", checkpoints=Folder(bucket="data", prefix="")), Role.BATCH, ACCOUNT)
    assert permits(whole, "s3:ListBucket", DATA, {"s3:prefix": ""})


def test_the_key_of_queues_is_used_through_sqs_only() -> None:
    """A customer's key: with it nobody decrypts a message that SQS did not hand out. AWS's own needs no right."""
    via = {"kms:ViaService": "sqs.eu-central-1.amazonaws.com"}
    assert permits(policy(Role.SUBMITTER), "kms:GenerateDataKey", QUEUE, via)
    assert not permits(policy(Role.SUBMITTER), "kms:Decrypt", QUEUE)
    assert not permits(policy(Role.READER), "kms:Decrypt", QUEUE, via)
    for key in (None, "alias/aws/sqs"):
        assert "kms:ViaService" not in json.dumps(policy(Role.SUBMITTER, queue_key=key))


def test_the_hash_key_is_unwrapped_only_where_it_is_wrapped() -> None:
    """A keyring's, or one from the environment, needs no right."""
    keys = Keys(ids=(KEY,), tenant="clinic-a")
    context = context_of(binding_of("clinic-a", "hash-key"))
    assert not permits(policy(Role.DISPATCHER, keys=keys), "kms:Decrypt", KEY, context)


def test_our_word_in_the_encryption_context_is_the_codec_s() -> None:
    """Said twice, for the core knows no adapter."""
    assert binding_of("t", "p")["package"] == PACKAGE


# --- what must be known


@pytest.mark.parametrize(
    ("account", "changes", "words"),
    [
        (Account(), {"region": "eu-central-1"}, "account of the queues is not known: set --account"),
        (Account(number="123456789012"), {}, "region of the queues is not known"),
        (ACCOUNT, {"keys": Keys(ids=("alias/phi",), tenant="t")}, "id or ARN"),
        (ACCOUNT, {"queue_key": "alias/mine"}, "id or ARN"),
        (ACCOUNT, {"claims": Folder(bucket="data", prefix="a*b")}, "meaning of their own"),
        (ACCOUNT, {"claims": Folder(bucket="Da*", prefix="a")}, "meaning of their own"),
    ],
    ids=["account", "region", "alias", "alias of queues", "prefix", "bucket"],
)
def test_what_is_unknown_is_asked_for(account: Account, changes: dict[str, Any], words: str) -> None:
    """No policy with a gap in it."""
    with pytest.raises(SpecError, match=re.escape(words)):
        iam_policy(places(**changes), Role.SUBMITTER, account)


@pytest.mark.parametrize("wrong", [{"number": "12"}, {"region": "here"}, {"partition": "gcp"}], ids=str)
def test_an_account_must_be_one(wrong: dict[str, str]) -> None:
    """Checked where it is made."""
    with pytest.raises(SpecError, match=f"--{'account' if 'number' in wrong else next(iter(wrong))}"):
        Account(**wrong)


def test_ids_become_arns_and_china_has_its_own_names() -> None:
    """Partition, region and account; a key's own ARN stays as it is."""
    account = Account(number="123456789012", region="cn-north-1", partition="aws-cn")
    found = json.dumps(iam_policy(places(keys=None, queue_key="mrk-1"), Role.SUBMITTER, account))
    assert "arn:aws-cn:sqs:cn-north-1:123456789012:in" in found
    assert "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1" in found
    assert "sqs.cn-north-1.amazonaws.com.cn" in found
    assert "arn:aws-cn:s3:::data/claims/payload/*" in found


def test_a_role_without_work_at_aws_gets_no_policy() -> None:
    """The owner of tables; a worker whose queues are topics and whose claim checks are local."""
    with pytest.raises(SpecError, match="uses nothing at AWS"):
        policy(Role.OWNER)
    with pytest.raises(SpecError, match="uses nothing at AWS"):
        iam_policy(Places(kind="jobs"), Role.WORKER, ACCOUNT)


def test_heads_are_written_under_a_lock_where_there_is_one() -> None:
    """Setting a retention is a right of its own."""
    locked = "arn:aws:s3:::locked/w/1.json"
    assert permits(policy(Role.WORKER), "s3:PutObjectRetention", locked)
    assert not permits(policy(Role.WORKER, locked_heads=False), "s3:PutObjectRetention", locked)
    assert not permits(policy(Role.WORKER), "s3:GetObject", locked)
