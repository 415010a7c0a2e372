"""Whether a webhook is signed by one who holds a key: https://github.com/standard-webhooks/standard-webhooks

Two keys may be active, so that they can be rotated without a moment in which workers are refused. Signatures are
compared in constant time; whoever was refused learns nothing of why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from standardwebhooks import Webhook

TOLERANCE_SECONDS: Final = 300.0
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"

# Why a webhook is refused.
UNSIGNED: Final = "unsigned"
STALE: Final = "stale"  # older or newer than the tolerance
WRONG_SIGNATURE: Final = "wrong_signature"


class SignatureCheck:
    """Checks signatures.

    :param secrets: ``whsec_…``, the active ones; none refuses everything
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [Webhook(secret) for secret in secrets]

    def refusal(self, headers: Mapping[str, str], body: bytes, *, now: float) -> str | None:
        """Why it is not to be believed; None when it is.

        :param headers: with names in lower case
        :param now: epoch seconds
        """
        given = {name: headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE)}
        if not all(given.values()):
            return UNSIGNED
        if not _is_recent(given[TIMESTAMP], now):
            return STALE
        signed = [_is_signed(key, given, body) for key in self._keys]  # all of them: how long it takes says nothing
        return None if any(signed) else WRONG_SIGNATURE


def _is_recent(timestamp: str, now: float) -> bool:
    try:
        seconds = float(timestamp)
    except ValueError:
        return False
    return math.isfinite(seconds) and abs(now - seconds) <= TOLERANCE_SECONDS


def _is_signed(key: Webhook, headers: dict[str, str], body: bytes) -> bool:
    try:
        key.verify(body, headers, json_parse=False)
    except Exception:  # noqa: BLE001 - headers come from anyone; what is not verified is not signed
        return False
    return True
