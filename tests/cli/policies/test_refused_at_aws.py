"""Every role × every action at SQS and S3: what is not in its row is refused by a server that enforces the policy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from airflow_provider_ai.core.policies.iam import iam_policy
from airflow_provider_ai.core.policies.places import Account, Folder, Places
from airflow_provider_ai.core.policies.roles import ROLES, Kind, Role
from tests.support.moto import ACCOUNT, REGION, Moto

REFUSED = ("AccessDenied", "AccessDeniedException", "403", "Forbidden")
AT_AWS = [(kind, role) for kind in ("jobs", "batch") for role in ROLES[kind] if role is not Role.OWNER]
AT_ONCE = 4

SEND = {"SendMessage"}
CONSUME = {"ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"}
DEPTH = {"GetQueueAttributes"}
READ, WRITE, DELETE = {"GetObject"}, {"PutObject", "AbortMultipartUpload"}, {"DeleteObject", "GetObject"}
HEADS = {"PutObject"}
VERIFY = {"GetObject", "GetObjectVersion"}
LIST = {"ListBucket"}
# What each role may do, by queue, folder and bucket. All the rest it must not.
MAY: dict[tuple[Kind, str], dict[str, set[str]]] = {
    ("jobs", "submitter"): {
        "requests": SEND,
        "claims/payload/x": READ | WRITE,
        "claims/result/x": READ,
        "claims/plans/x": READ | WRITE,
        "claims/dataset-1/manifest.json": READ | WRITE,
        "heads/x": HEADS,
        "data": LIST,
    },
    ("jobs", "worker"): {
        "requests": CONSUME,
        "results": SEND,
        "dead_letters": SEND,
        "claims/payload/x": READ,
        "claims/result/x": WRITE,
        "heads/x": HEADS,
        "data": LIST,
    },
    ("jobs", "dispatcher"): {
        "requests": SEND | DEPTH,
        "results": CONSUME,
        "dead_letters": CONSUME | SEND,
        "claims/payload/x": DELETE,
        "claims/payload/": DELETE | {"PutObject"},
        "claims/result/x": DELETE,
        "claims/result/": DELETE | {"PutObject"},
        "heads/x": HEADS,
        "data": LIST,
    },
    ("jobs", "operator"): {"requests": SEND, "dead_letters": CONSUME | DEPTH, "heads/x": HEADS},
    ("jobs", "reader"): {"requests": DEPTH, "results": DEPTH, "dead_letters": DEPTH},
    ("jobs", "auditor"): {"heads/x": VERIFY, "locked": {"ListBucketVersions"}},
    ("jobs", "rotator"): {
        "claims/payload/x": READ | WRITE,
        "claims/result/x": READ | WRITE,
        "claims/plans/x": READ | WRITE,
        "claims/dataset-1/manifest.json": READ | WRITE,
        "data": LIST,
    },
    ("batch", "batch"): {
        "checkpoints/x": READ | WRITE | DELETE,
        "input/x": READ,
        "heads/x": HEADS,
        "data": LIST,
    },
    ("batch", "reader"): {"checkpoints/x": READ, "input/x": READ, "data": LIST},
    ("batch", "auditor"): {"heads/x": VERIFY, "locked": {"ListBucketVersions"}},
    ("batch", "rotator"): {"checkpoints/x": READ | WRITE | DELETE, "data": LIST},
}
KEYS = (
    "claims/payload/x",
    "claims/payload/",
    "claims/result/x",
    "claims/result/",
    "claims/plans/x",
    "claims/dataset-1/manifest.json",
    "checkpoints/x",
    "input/x",
    "elsewhere/x",
)


@dataclass(frozen=True)
class Ground:
    """Queues and buckets, of the deployment and of somebody else."""

    moto: Moto
    queues: dict[str, str]
    data: str
    locked: str
    foreign: str

    def places(self, kind: Kind) -> Places:
        """What a spec of this kind names."""
        heads = Folder(bucket=self.locked, prefix="heads")
        if kind == "batch":
            data = {name: Folder(bucket=self.data, prefix=name) for name in ("checkpoints", "input")}
            return Places(kind=kind, heads=heads, **data)
        queues = {name: queue for name, queue in self.queues.items() if name != "foreign"}
        claims = Folder(bucket=self.data, prefix="claims")
        return Places(kind=kind, queues=queues, region=REGION, claims=claims, heads=heads)

    def policy(self, kind: Kind, role: Role) -> dict[str, Any]:
        """A role's policy."""
        return iam_policy(self.places(kind), role, Account(number=ACCOUNT))


@pytest.fixture(scope="module")
def ground(moto_server: Moto) -> Ground:
    tag = uuid4().hex[:8]
    queues = {name: f"{name}-{tag}" for name in ("requests", "results", "dead_letters", "foreign")}
    for name in queues.values():
        moto_server.client("sqs").create_queue(QueueName=name)
    buckets = [f"{name}-{tag}" for name in ("data", "locked", "foreign")]
    for bucket in buckets:
        moto_server.client("s3").create_bucket(Bucket=bucket)
    return Ground(moto_server, queues, *buckets)


def attempts(ground: Ground, sqs: Any, s3: Any) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Where, which action, and a call of it that has no effect: of handles, versions and uploads that are none."""
    for queue, name in ground.queues.items():
        url = {"QueueUrl": f"{ground.moto.url}/{ACCOUNT}/{name}"}
        handle = {**url, "ReceiptHandle": "none"}
        yield queue, "SendMessage", lambda url=url: sqs.send_message(**url, MessageBody="x")
        yield queue, "ReceiveMessage", lambda url=url: sqs.receive_message(**url, VisibilityTimeout=0)
        yield queue, "DeleteMessage", lambda handle=handle: sqs.delete_message(**handle)
        yield (
            queue,
            "ChangeMessageVisibility",
            lambda handle=handle: sqs.change_message_visibility(**handle, VisibilityTimeout=1),
        )
        yield queue, "GetQueueAttributes", lambda url=url: sqs.get_queue_attributes(**url, AttributeNames=["All"])
        yield queue, "SetQueueAttributes", lambda url=url: sqs.set_queue_attributes(**url, Attributes={})
        yield queue, "PurgeQueue", lambda url=url: sqs.purge_queue(**url)
    for bucket, keys in ((ground.data, KEYS), (ground.locked, ("heads/x", "other")), (ground.foreign, KEYS[:1])):
        for key in keys:
            where = key if bucket != ground.foreign else f"foreign/{key}"
            yield from on_object(s3, where, {"Bucket": bucket, "Key": key})
        name = {ground.data: "data", ground.locked: "locked", ground.foreign: "foreign"}[bucket]
        yield name, "ListBucket", lambda bucket=bucket: s3.list_objects_v2(Bucket=bucket)
        yield name, "ListBucketVersions", lambda bucket=bucket: s3.list_object_versions(Bucket=bucket)
        yield name, "GetBucketPolicy", lambda bucket=bucket: s3.get_bucket_policy(Bucket=bucket)
        yield name, "DeleteBucketPolicy", lambda bucket=bucket: s3.delete_bucket_policy(Bucket=bucket)


def on_object(s3: Any, where: str, it: dict[str, str]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    yield where, "GetObject", lambda: s3.get_object(**it)
    yield where, "GetObjectVersion", lambda: s3.get_object(**it, VersionId="none")
    yield where, "PutObject", lambda: s3.put_object(**it, Body=b"x")
    yield where, "PutObjectAcl", lambda: s3.put_object_acl(**it, ACL="private")
    yield where, "AbortMultipartUpload", lambda: s3.abort_multipart_upload(**it, UploadId="none")
    yield where, "DeleteObject", lambda: s3.delete_object(**it)
    yield where, "DeleteObjectVersion", lambda: s3.delete_object(**it, VersionId="none")


def allowed(ground: Ground, policy: dict[str, Any], *, at: str | None = None) -> dict[str, set[str]]:
    """What a user under a policy is not refused, found by trying all of it, or what there is at one place."""
    user = ground.moto.user(policy)
    tried = list(attempts(ground, ground.moto.client("sqs", user), ground.moto.client("s3", user)))
    tried = [each for each in tried if at in (None, each[0])]
    found: dict[str, set[str]] = {}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for (where, action, _), done in zip(tried, threads.map(lambda each: passes(each[2]), tried), strict=True):
            if done:
                found.setdefault(where, set()).add(action)
    return found


def passes(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"] not in REFUSED
    return True


@pytest.mark.parametrize(("kind", "role"), AT_AWS, ids=str)
def test_a_role_may_do_its_row_and_nothing_else(ground: Ground, kind: Kind, role: Role) -> None:
    """On every queue, folder and bucket of the deployment, and of somebody else's."""
    assert allowed(ground, ground.policy(kind, role)) == expected(kind, role)


def expected(kind: Kind, role: Role) -> dict[str, set[str]]:
    may = dict(MAY[(kind, role.value)])
    for marker in ("claims/payload/", "claims/result/"):  # a folder's own object matches its pattern
        if f"{marker}x" in may:
            may.setdefault(marker, may[f"{marker}x"])
    return may


@pytest.mark.parametrize(
    ("broader", "where"),
    [
        ({"Action": ["sqs:*"]}, "results"),
        ({"Resource": ["*"]}, "foreign"),
        ({"Action": ["s3:*"]}, "claims/payload/x"),
    ],
    ids=["every action of SQS", "every queue and bucket", "every action of S3"],
)
def test_a_broader_policy_does_not_pass(ground: Ground, broader: dict[str, Any], where: str) -> None:
    """The mutants: what they let through is what the test above would report."""
    policy = copy.deepcopy(ground.policy("jobs", Role.DISPATCHER))
    for statement in policy["Statement"]:
        service = broader.get("Action", [":"])[0].partition(":")[0]
        if statement["Effect"] == "Allow" and statement["Action"][0].startswith(service):
            statement.update(broader)
    found = allowed(ground, policy, at=where)
    assert found[where] - expected("jobs", Role.DISPATCHER).get(where, set())
