"""What a deployment consists of, as far as rights are concerned: queues, folders of buckets, keys. Read from a spec."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from airflow_provider_ai.core.policies.roles import Kind
from airflow_provider_ai.exceptions import SpecError

_KEY_ARN = re.compile(r"arn:[a-z-]+:kms:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):key/.+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SPECIAL = "*?$"  # in the ARNs and conditions of IAM


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of a bucket, or one object of it. ``prefix`` has no slash at its ends and may be empty."""

    bucket: str
    prefix: str

    def path(self, name: str) -> str:
        """The key of something in it."""
        return f"{self.prefix}/{name}" if self.prefix else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys of KMS under which data are encrypted.

    :param ids: ids or ARNs; the first is the current one
    :param wrapped_hash_key: whether the key of hashes is itself unwrapped by KMS
    """

    ids: tuple[str, ...]
    tenant: str
    region: str | None = None
    wrapped_hash_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """A deployment. What is absent is not at AWS, or is not used.

    :param queues: ``requests``, ``results``, ``dead_letters`` → name, of SQS
    :param queue_key: the KMS key of those queues
    :param region: of the queues
    :param locked_heads: whether heads are written under Object Lock
    """

    kind: Kind
    queues: dict[str, str] = field(default_factory=dict)
    queue_key: str | None = None
    region: str | None = None
    claims: Folder | None = None
    checkpoints: Folder | None = None
    input: Folder | None = None
    heads: Folder | None = None
    locked_heads: bool = True
    keys: Keys | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where at AWS. What is absent is asked for when it is needed: no policy is printed with a gap in it.

    :param number: of the account, 12 digits
    :param region: for what names none itself
    """

    number: str | None = None
    region: str | None = None
    partition: str = "aws"

    def __post_init__(self) -> None:
        if self.number is not None and not re.fullmatch(r"\d{12}", self.number):
            raise SpecError("--account must be the 12 digits of an AWS account")
        if self.region is not None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", self.region):
            raise SpecError(f"--region must be the name of a region such as eu-central-1, got {self.region!r}")
        if not re.fullmatch(r"aws(-[a-z]+)*", self.partition):
            raise SpecError(f"--partition must be aws, aws-cn, aws-us-gov or another of AWS's, got {self.partition!r}")

    def queue_arn(self, name: str, region: str | None) -> str:
        """Of a queue of SQS."""
        return f"arn:{self.partition}:sqs:{self._region(region, 'the queues')}:{self._number('the queues')}:{name}"

    def key_arn(self, key: str, region: str | None) -> str:
        """Of a key of KMS, given as an ARN or an id."""
        if _KEY_ARN.fullmatch(key):
            return key
        if key.startswith(("alias/", "arn:")):
            raise SpecError("a KMS key must be named by its id or ARN: IAM gives rights on keys, not on aliases")
        where = "a KMS key that is named by its id alone"
        return f"arn:{self.partition}:kms:{self._region(region, where)}:{self._number(where)}:key/{key}"

    def bucket_arn(self, folder: Folder) -> str:
        """Of a folder's bucket. ARNs of S3 name no region and no account: names of buckets are unique."""
        if not _BUCKET.fullmatch(folder.bucket) or any(letter in folder.prefix for letter in _SPECIAL):
            raise SpecError("a bucket or prefix has characters that IAM gives a meaning of their own: use others")
        return f"arn:{self.partition}:s3:::{folder.bucket}"

    def service(self, name: str, region: str | None) -> str:
        """A service as ``kms:ViaService`` names it."""
        domain = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        return f"{name}.{self._region(region, 'the queues')}.{domain}"

    def _region(self, named: str | None, what: str) -> str:
        region = named or self.region
        if region is None:
            raise SpecError(f"the region of {what} is not known: set region in the spec, or --region")
        return region

    def _number(self, what: str) -> str:
        if self.number is None:
            raise SpecError(f"the AWS account of {what} is not known: set --account to its 12 digits")
        return self.number
