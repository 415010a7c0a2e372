"""Every error this package raises on purpose.

::

    AIProviderError
    ├── SpecError                       settings that cannot be right; a retry cannot help
    ├── InputError                      the dataset cannot be used as it is; a retry cannot help
    │   ├── EmptyDatasetError
    │   ├── UnreadableFileError
    │   ├── MissingColumnError
    │   ├── NullIdError
    │   ├── DuplicateIdError
    │   └── InputChangedError           the files are not the ones that were planned
    ├── CheckpointError
    │   ├── CorruptCheckpointError      bytes that fail their checksum; names the file
    │   ├── CheckpointWriteError        the checkpoint volume refuses writes; a retry resumes
    │   └── PartitionBusyError          another live runner holds the partition; a retry resumes
    ├── EndpointUnavailableError        the endpoint stayed down; a retry resumes
    ├── QuarantineThresholdError        too many records failed; a plain retry cannot help
    ├── StoppedError                    SIGTERM; a retry resumes
    ├── SinkError                       the warehouse refuses the rows; no inference is lost
    │   └── SinkUnavailableError        the warehouse is down or locked; a retry publishes
    ├── ReconciliationError             the counts do not add up; says where
    ├── ClaimCheckError                 an output cannot be stored, or is not there as it was stored
    │   └── ClaimCheckUnavailableError  its storage does not answer; a retry can help
    ├── EncryptionError                 data cannot be encrypted or decrypted; nothing is lost
    │   ├── KeyAccessError              the key cannot be used
    │   │   ├── KeyUnavailableError     the key service does not answer; a retry can help
    │   │   ├── KeyRevokedError         the key is disabled or withheld; once it is back, a retry goes on
    │   │   └── UnknownKeyError         data need a key that is not configured; configure it, then retry
    │   └── CiphertextError             these bytes are not what was encrypted; a retry cannot help
    │       ├── NotEncryptedError       they are in clear, where encryption is on
    │       ├── EncryptedDataError      they are encrypted, where it is off
    │       ├── TruncatedCiphertextError
    │       ├── WrongContextError       they belong to another record, field, job, purpose or tenant
    │       └── TamperedCiphertextError
    ├── JobMismatchError                a job is there already, with another payload; a retry cannot help
    ├── UndecodableMessageError         a message that is none; it goes to the dead letters
    ├── StoreError                      the store cannot be used as it is; calls go on without it
    │   ├── StoreUnavailableError       the store is down, locked or too slow
    │   ├── StoreSchemaError            its tables are older or newer than this package
    │   └── AuditError                  an audit event is refused: what it is about is not done
    │       └── AuditUnavailableError   the audit's store or heads are down; a retry can help
    └── QueueError                      a queue refuses what is asked; a plain retry cannot help
        ├── QueueUnavailableError       the queue is down or throttled; a retry can help
        └── MessagesRefusedError        a queue does not take these messages; all others were sent

Messages never carry a record id, a payload or an output: they name files, row numbers, partitions and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_ai.core.report import BatchReport


class AIProviderError(Exception):
    """Base of all errors of this package. ``report``: the counts at the end of the run it ended, if it ended one."""

    report: BatchReport | None = None


class SpecError(AIProviderError, ValueError):
    """A setting is missing, unknown or out of range. Fix the setting; a retry cannot help."""


class InputError(AIProviderError):
    """The input dataset cannot be used as it is. Fix the data; a retry cannot help."""


class EmptyDatasetError(InputError):
    """No file matches the input, or the files that match hold no row."""


class UnreadableFileError(InputError):
    """A file of the dataset cannot be parsed."""


class MissingColumnError(InputError):
    """The id column or a requested column is not in the dataset."""


class NullIdError(InputError):
    """A row has no id."""


class DuplicateIdError(InputError):
    """Two rows share an id."""


class InputChangedError(InputError):
    """A file was added, removed or rewritten after the plan was made."""


class CheckpointError(AIProviderError):
    """Something is wrong with the checkpoints."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint file fails its checksum. The message names the file and what removing it would cost."""


class CheckpointWriteError(CheckpointError):
    """The checkpoint volume refuses writes (full, failing). What was acknowledged is kept; a retry resumes."""


class PartitionBusyError(CheckpointError):
    """Another live runner holds the partition. A retry resumes from what that runner has finished."""


class EndpointUnavailableError(AIProviderError):
    """The endpoint stayed down longer than ``max_outage_seconds``. What was paid for is kept; a retry resumes."""


class QuarantineThresholdError(AIProviderError):
    """More records failed than ``max_quarantined_fraction`` allows. What was paid for is kept."""


class StoppedError(AIProviderError):
    """The run was asked to stop (SIGTERM) and has flushed. A retry resumes."""


class SinkError(AIProviderError):
    """The warehouse refuses the rows. No inference is lost; publishing again needs no model call."""


class SinkUnavailableError(SinkError):
    """The warehouse is down or locked. A retry publishes from the checkpoints, without model calls."""


class ReconciliationError(AIProviderError):
    """``succeeded + quarantined + pending = input`` does not hold, or the table disagrees. The message says where."""


class ClaimCheckError(AIProviderError):
    """An output cannot be stored or read, or what lies there is not what was stored. The message names the place."""


class ClaimCheckUnavailableError(ClaimCheckError):
    """The storage of claim checks does not answer, or refuses. Nothing is lost; the same call may succeed later."""


class EncryptionError(AIProviderError):
    """Data cannot be encrypted or decrypted. What was stored stays as it is. Messages hold no key and no plaintext."""


class KeyAccessError(EncryptionError):
    """A key cannot be used. Nothing is lost: what it has encrypted can be read again as soon as the key can be used."""


class KeyUnavailableError(KeyAccessError):
    """The key service is down, throttled or too slow. The same call may succeed later."""


class KeyRevokedError(KeyAccessError):
    """A key is disabled, about to be deleted, or its use is denied. Once that is undone, a retry goes on."""


class UnknownKeyError(KeyAccessError):
    """Data were encrypted under a key that is not configured. The message names its id: add it as an older key."""


class CiphertextError(EncryptionError):
    """Bytes that are not what was encrypted here. Nothing of them was used; a retry cannot help."""

    def at(self, place: str) -> CiphertextError:
        """The same error, which also says where the bytes lie."""
        return type(self)(f"{place}: {self}")


class NotEncryptedError(CiphertextError):
    """Bytes in clear, where only encrypted ones are accepted."""


class EncryptedDataError(CiphertextError):
    """Encrypted bytes, read without any keys."""


class TruncatedCiphertextError(CiphertextError):
    """Encrypted bytes whose end is missing."""


class WrongContextError(CiphertextError):
    """Encrypted bytes that were made for another place: another record, field, job, purpose or tenant."""


class TamperedCiphertextError(CiphertextError):
    """Encrypted bytes that were changed, by an accident or by somebody."""


class JobMismatchError(AIProviderError):
    """The requests of a submission are not those that were submitted before. Changed ones are another submission."""


class UndecodableMessageError(AIProviderError):
    """A message of a queue is not one of ours, or not whole. It cannot become so: it goes to the dead letters.

    :ivar reason: one word of :mod:`airflow_provider_ai.core.messages`, never data
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the message cannot be decoded ({reason}): it goes to the dead letters")
        self.reason = reason


class StoreError(AIProviderError):
    """The store cannot be used as it is. Synchronous calls go on without breaker, bulkhead and last good answers."""


class StoreUnavailableError(StoreError):
    """The store is down, locked or too slow. A later call finds it again by itself."""


class StoreSchemaError(StoreError):
    """The store's tables are not those of this package. The message says which of the two to upgrade."""


class AuditError(StoreError):
    """An event cannot be audited, so what it is about is not done. What was paid for is kept."""


class AuditUnavailableError(AuditError, StoreUnavailableError):
    """The audit's store, or the place of its heads, does not answer. A retry goes on where it was.

    Whoever waits for a store that is down waits for this one, too.
    """


class QueueError(AIProviderError):
    """A queue is not there, or refuses what is asked. The message says what to correct; a plain retry cannot help."""


class QueueUnavailableError(QueueError):
    """The queue's service is down, throttled or too slow. Nothing is lost; the same call may succeed later."""


class MessagesRefusedError(QueueError):
    """A queue never takes some of the messages as they are: too large, not UTF-8, too many attributes.

    :ivar refused: key of each → why, in words that quote nothing of it
    :ivar sent: keys of the others that are in
    """

    def __init__(self, queue: str, refused: Mapping[str, str], sent: Sequence[str]) -> None:
        key, reason = next(iter(refused.items()))
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        super().__init__(f"{queue}: the message of job {key} is refused: {reason}{more}; a retry cannot help")
        self.refused = dict(refused)
        self.sent = tuple(sent)
