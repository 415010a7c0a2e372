"""A codec, audited: what was stored encrypted is handed out in clear once it is on record that it was read.

For what is read without any other event, such as the output of a call by a later task. A worker does not need it: that
it is about to send a payload to a model is on record before it, and its event loop must not wait for a commit.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from airflow_provider_ai.core.audit import AuditAction
from airflow_provider_ai.core.ports import Codec
from airflow_provider_ai.patterns.auditing import FAILED, SUCCEEDED, Auditor


class AuditedCodec:
    """A codec whose decoding is audited. Blocks; raises AuditError where that cannot be kept.

    What was read is named by the key of its context, which says what the bytes are and is opaque itself.
    """

    def __init__(self, inner: Codec, auditor: Auditor) -> None:
        self.name = inner.name
        self._inner = inner
        self._auditor = auditor

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """Bytes to store."""
        return self._inner.encode(data, context=context)

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """The inverse, on record. What cannot be decoded is on record as well: somebody tried."""
        try:
            decoded = self._inner.decode(data, context=context)
        except Exception as error:
            self._record(context, type(error).__name__)
            raise
        self._record(context, None)
        return decoded

    def prepare(self, what: str) -> None:
        """See :class:`Codec`."""
        self._inner.prepare(what)

    def digest(self, data: bytes) -> str:
        """See :class:`Codec`."""
        return self._inner.digest(data)

    def opaque(self, name: str) -> str:
        """See :class:`Codec`."""
        return self._inner.opaque(name)

    def record_key(self, record_id: object) -> str:
        """See :class:`Codec`."""
        return self._inner.record_key(record_id)

    def _record(self, context: Mapping[str, str], failure: str | None) -> None:
        auditor = self._auditor
        name = auditor.key(orjson.dumps(dict(context), option=orjson.OPT_SORT_KEYS))
        auditor.record(
            auditor.event(
                AuditAction.DECRYPT,
                SUCCEEDED if failure is None else FAILED,
                keys=[name],
                reference=context.get("what") or context.get("kind"),
                reason=failure,
            )
        )
