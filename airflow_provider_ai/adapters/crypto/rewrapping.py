"""Stored bytes whose data keys are wrapped by an older key → the same bytes, wrapped by the current one.

What was encrypted is neither decrypted nor moved: only key id and wrapped data key in front of it change. Each wrapped
data key is sent to the key service once, however many messages carry it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_ai.adapters.crypto.wrapping import KeyWrapper, binding_of
from airflow_provider_ai.core.envelope import open_up, read_header, with_wrapped_key
from airflow_provider_ai.core.envelope_mark import is_envelope
from airflow_provider_ai.core.frames import encode_frame, scan_frames


@dataclass(slots=True)
class Rewrapper:
    """Wraps anew the data keys of one tenant."""

    wrapper: KeyWrapper
    tenant: str
    _made: dict[tuple[str, str, bytes], tuple[str, bytes]] = field(default_factory=dict)

    def message(self, data: bytes) -> bytes:
        """One message under the current key; what is not encrypted comes back as it is.

        :raises EncryptionError: its key cannot be used, or it is not one of ours
        """
        if not is_envelope(data):
            return data
        header = read_header(open_up(data).start)
        if self.wrapper.is_current(header.key_id):
            return data
        known = (header.purpose, header.key_id, header.wrapped_key)
        made = self._made.get(known)
        if made is None:
            binding = binding_of(self.tenant, header.purpose)
            made = self._made[known] = self.wrapper.wrap_anew(header.key_id, header.wrapped_key, binding)
        key_id, wrapped = made
        return with_wrapped_key(data, key_id=key_id, wrapped_key=wrapped)

    def is_due(self, log: bytes) -> bool:
        """Whether a log holds messages under an older key. Asks no key service."""
        found = (payload for payload in scan_frames(log).payloads if is_envelope(payload))
        return any(not self.wrapper.is_current(read_header(payload).key_id) for payload in found)

    def log(self, data: bytes) -> bytes:
        """A log, all of whose whole frames are under the current key. A torn frame at its end stays."""
        scan = scan_frames(data)
        frames = [encode_frame(self.message(payload)) for payload in scan.payloads]
        return b"".join(frames) + data[scan.valid_bytes :]
