"""Rights and places → the JSON of an IAM policy.

No action has a wildcard. A resource has one only where names cannot be known, at the end of a folder. What travels
without TLS is denied, whatever other policies allow. Data keys are made and unwrapped only with the encryption context
that this package sends: package, tenant and purpose, and nothing else beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_ai.core.policies.places import Account, Folder, Keys, Places
from airflow_provider_ai.core.policies.rights import RIGHTS, STORED, Area, Rights, Use
from airflow_provider_ai.core.policies.roles import Role
from airflow_provider_ai.core.purposes import HASH_KEY
from airflow_provider_ai.exceptions import SpecError

Statement = dict[str, Any]
PACKAGE = "airflow-provider-ai"
"""The encryption context's word for this package."""

_ACTIONS = {
    Use.READ: ("s3:GetObject",),
    Use.WRITE: ("s3:AbortMultipartUpload", "s3:PutObject"),
    Use.DELETE: ("s3:DeleteObject", "s3:GetObject"),
}
_PATTERNS = {
    Area.PAYLOADS: ("payload/*",),
    Area.RESULTS: ("result/*",),
    Area.PLANS: ("plans/*", "dataset-*"),
    Area.CLAIMS: ("*",),
    Area.CHECKPOINTS: ("*",),
    Area.INPUT: ("*",),
}
_QUEUE_WORDS = {"requests": "Requests", "results": "Results", "dead_letters": "DeadLetters"}
_CONSUMES, _SENDS = "sqs:ReceiveMessage", "sqs:SendMessage"


def iam_policy(places: Places, role: Role, account: Account) -> dict[str, Any]:
    """The policy of a role.

    :raises SpecError: for what is not known yet, and for a role that has nothing to do at AWS
    """
    rights = RIGHTS.get((places.kind, role), Rights())
    allowed = [
        *_queue_statements(places, rights, account),
        *_storage_statements(places, rights, account),
        *_head_statements(places, rights, account),
        *_key_statements(places, rights, account),
    ]
    if not allowed:
        raise SpecError(f"role {role.value!r} uses nothing at AWS in this deployment: it needs no IAM policy")
    return {"Version": "2012-10-17", "Statement": [*allowed, _only_with_tls(allowed)]}


def _only_with_tls(allowed: Sequence[Statement]) -> Statement:
    return _statement(
        "DenyWithoutTLS",
        sorted({action for each in allowed for action in each["Action"]}),
        sorted({resource for each in allowed for resource in each["Resource"]}),
        {"Bool": {"aws:SecureTransport": "false"}},
        effect="Deny",
    )


# --- queues


def _queue_statements(places: Places, rights: Rights, account: Account) -> Iterator[Statement]:
    used: set[str] = set()
    for queue, name in places.queues.items():
        actions = rights.queues.get(queue, ())
        if actions:
            used.update(actions)
            yield _statement(f"Queue{_QUEUE_WORDS[queue]}", actions, [account.queue_arn(name, places.region)])
    key = places.queue_key
    if key is None or key.startswith("alias/aws/") or not used & {_CONSUMES, _SENDS}:
        return  # a key of AWS's own lets in whoever may use the queue
    actions = ("kms:Decrypt", "kms:GenerateDataKey") if _SENDS in used else ("kms:Decrypt",)
    via = {"StringEquals": {"kms:ViaService": account.service("sqs", places.region)}}
    yield _statement("QueueKey", actions, [account.key_arn(key, places.region)], via)


# --- objects


def _storage_statements(places: Places, rights: Rights, account: Account) -> Iterator[Statement]:
    homes = {Area.CHECKPOINTS: places.checkpoints, Area.INPUT: places.input}
    for area, uses in rights.storage.items():
        folder = homes.get(area, places.claims)
        if folder is not None:
            yield from _area_statements(area, uses, folder, account)


def _area_statements(area: Area, uses: Sequence[Use], folder: Folder, account: Account) -> Iterator[Statement]:
    bucket = account.bucket_arn(folder)
    patterns = [folder.path(pattern) for pattern in _PATTERNS[area]]
    if area is Area.INPUT and folder.prefix:
        patterns.append(folder.prefix)  # it may be a single file
    actions = sorted({action for use in uses for action in _ACTIONS[use]})
    yield _statement(area.value, actions, [f"{bucket}/{pattern}" for pattern in patterns])
    if Use.DELETE in uses and Use.WRITE not in uses:
        own = [pattern.removesuffix("*") for pattern in patterns]
        yield _statement(f"{area.value}Folder", ["s3:PutObject"], [f"{bucket}/{each}" for each in own])
    if Use.READ in uses or Use.DELETE in uses:
        yield _statement(f"{area.value}List", ["s3:ListBucket"], [bucket], _listing(patterns))


def _listing(patterns: Sequence[str]) -> Statement:
    """Of a missing object S3 takes the name for this prefix, when it decides whether to say that it is missing."""
    return {"StringLike": {"s3:prefix": list(patterns)}}


def _head_statements(places: Places, rights: Rights, account: Account) -> Iterator[Statement]:
    folder = places.heads
    if folder is None:
        return
    bucket, pattern = account.bucket_arn(folder), folder.path("*")
    objects = [f"{bucket}/{pattern}"]
    if rights.audits:
        actions = ["s3:PutObject", *(["s3:PutObjectRetention"] if places.locked_heads else [])]
        yield _statement("AuditHeads", actions, objects)
    if rights.verifies:
        yield _statement("AuditHeads", ["s3:GetObject", "s3:GetObjectVersion"], objects)
        yield _statement("AuditHeadsList", ["s3:ListBucketVersions"], [bucket], _listing([pattern]))


# --- keys


def _key_statements(places: Places, rights: Rights, account: Account) -> Iterator[Statement]:
    keys = places.keys
    if keys is None:
        return
    arns = [account.key_arn(key, keys.region) for key in keys.ids]
    if rights.encrypts:
        yield _statement("Encrypt", ["kms:GenerateDataKey"], arns[:1], _bound(keys, rights.encrypts))
    decrypts = [purpose for purpose in rights.decrypts if purpose != HASH_KEY or keys.wrapped_hash_key]
    if decrypts:
        yield _statement("Decrypt", ["kms:Decrypt"], arns, _bound(keys, decrypts))
    if rights.rewraps:
        yield _statement("WrapAnewFrom", ["kms:ReEncryptFrom"], arns, _bound(keys, STORED))
        yield _statement("WrapAnewTo", ["kms:ReEncryptTo"], arns[:1], _bound(keys, STORED))


def _bound(keys: Keys, purposes: Sequence[str]) -> Statement:
    context = {"package": PACKAGE, "tenant": keys.tenant, "purpose": list(purposes)}
    return {
        "StringEquals": {f"kms:EncryptionContext:{name}": value for name, value in context.items()},
        "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": list(context)},
    }


def _statement(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    condition: Statement | None = None,
    *,
    effect: str = "Allow",
) -> Statement:
    made: Statement = {"Sid": sid, "Effect": effect, "Action": list(actions), "Resource": list(resources)}
    return made if condition is None else {**made, "Condition": condition}
