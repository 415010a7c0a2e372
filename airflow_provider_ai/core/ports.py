"""What the patterns need from the outside. Adapters implement these; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from airflow_provider_ai.core.config import Protocol as WireProtocol
    from airflow_provider_ai.core.manifest import Manifest, Partition
    from airflow_provider_ai.core.rowset import RowSet
    from airflow_provider_ai.core.verdict import Failure


class Codec(Protocol):
    """Between data and where they are stored. ``name`` is recorded beside the bytes. Thread-safe.

    One that encrypts raises EncryptionError. It also makes what must not be guessed from: hashes and names.
    """

    name: str

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """Bytes to store. ``context`` says what they are (``what``) and where they belong (plan, partition, job)."""
        ...

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """The inverse of :meth:`encode` under the same context."""
        ...

    def prepare(self, what: str) -> None:
        """See that data of this kind can be encoded, before something is paid for that must then be kept."""
        ...

    def digest(self, data: bytes) -> str:
        """64 hex digits, the same for the same bytes in every process and on every day."""
        ...

    def opaque(self, name: str) -> str:
        """A name to stand in the clear for ``name``, the same every time."""
        ...

    def record_key(self, record_id: object) -> str:
        """The opaque name of a record: 32 hex digits, the same in every run."""
        ...


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some rows of a partition: ``rows[i]`` is the row number of ``records[i]`` (column name → Python value)."""

    rows: Sequence[int]
    records: Sequence[Mapping[str, Any]]


class PartitionReader(Protocol):
    """Reads a planned partition."""

    def blocks(self, manifest: Manifest, partition: Partition, *, done: RowSet) -> Iterator[RowBlock]:
        """The rows that are not in ``done``, in order, in blocks of bounded size. Finished row groups are not read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishUnit:
    """One partition to publish.

    :param scope: the slice of the table that belongs to this input (:func:`core.identity.scope_name`)
    :param partition: the value of ``_partition`` on every row; unique per scope and plan
    :param plan: manifest fingerprint; partitions of another plan in the same scope are superseded
    :param content: changes when the rows do; the same content twice is published once
    :param rows: how many rows will come
    """

    scope: str
    partition: str
    plan: str
    content: str
    rows: int
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What the warehouse says of one partition: its marker, and the rows that are really there."""

    partition: str
    plan: str
    content: str
    rows: int
    rows_present: int


class Sink(Protocol):
    """A warehouse table. Every method may raise SinkUnavailableError (try again) or SinkError (cannot help)."""

    def publish(self, unit: PublishUnit, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Replace the unit's partition by ``batches`` in one transaction, marker included; rows written.

        Readers see all of the old or all of the new. Safe with any number of concurrent runners.
        """
        ...

    def publications(self, scope: str) -> dict[str, Publication]:
        """Published partitions of a scope by name; empty when the table is not there yet."""
        ...

    def prune(self, scope: str, *, plan: str) -> int:
        """Remove the partitions of a scope that belong to another plan, markers included; rows removed."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRequest:
    """One call, ready to send: path below the endpoint's URL, JSON body, and the tokens it may cost (an estimate)."""

    path: str
    body: bytes
    estimated_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call as the server reported them; 0 where it reports none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An answer taken apart.

    ``outputs[i]`` belongs to the i-th record sent: the output columns, or the reason (a word such as
    ``missing_output`` or ``schema_mismatch``, never data) why that record has no valid output.
    """

    outputs: Sequence[dict[str, Any] | str]
    usage: Usage = Usage()


class UnrenderableRecordError(ValueError):
    """A record cannot be turned into a request (missing field, NaN, undefined template variable). Carries no data."""


class InvalidAnswerError(ValueError):
    """A 2xx body that cannot be used at all (not JSON, wrong shape). ``str()`` is a reason word, never data."""


class Request(Protocol):
    """How records become a call and an answer becomes output columns. Pure; shared by all three patterns."""

    @property
    def protocol(self) -> WireProtocol:
        """The protocol it is made for, one of :data:`airflow_provider_ai.core.config.PROTOCOLS`."""
        ...

    @property
    def inputs(self) -> Any:
        """The record, or list of records, of a synchronous call; None in a batch."""
        ...

    @property
    def records_per_request(self) -> int:
        """Most records in one call, ≥ 1."""
        ...

    def identity(self) -> dict[str, Any]:
        """Prompt, parameters and schema as plain JSON values: part of the checkpoint key."""
        ...

    @property
    def columns(self) -> Sequence[str] | None:
        """Input columns it needs besides the id; ``None`` for all."""
        ...

    def encode(self, model: str, ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> EncodedRequest:
        """One call for these records. UnrenderableRecordError when one of them cannot be sent."""
        ...

    def decode(self, body: bytes, ids: Sequence[Any]) -> Decoded:
        """Outputs in the order of ``ids``. InvalidAnswerError when the body is no answer at all."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, whole. ``retry_after``: the Retry-After header as it came."""

    status: int
    body: bytes
    retry_after: str | None = None


class CallFailedError(Exception):
    """A call ended without an answer. ``permanent``: no later call can succeed either (a refused certificate)."""

    def __init__(self, failure: Failure, detail: str, *, permanent: bool = False) -> None:
        super().__init__(detail)
        self.failure = failure
        self.permanent = permanent


class ModelEndpoint(Protocol):
    """Sends one call. Holds connections for the event loop it was opened in."""

    async def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        """The answer, or CallFailedError after at most ``deadline_seconds`` in total."""
        ...
