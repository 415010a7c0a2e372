"""The words that say why an answer is degraded.

Beside these: the words of :mod:`airflow_provider_ai.core.requests.reasons`, for a request that cannot be sent or an
answer that is none.
"""

from __future__ import annotations

from typing import Final

BREAKER_OPEN: Final = "breaker_open"  # the endpoint has failed too often; nothing was sent
BULKHEAD_FULL: Final = "bulkhead_full"  # too many calls are on their way to the endpoint; nothing was sent
TIMEOUT: Final = "timeout"  # no whole answer within the time there was
TLS: Final = "tls"  # the certificate, or the TLS set-up, is refused
CONNECT: Final = "connect"  # no connection: name not found, refused, unreachable
CONNECTION: Final = "connection"  # the connection broke while the answer was awaited
THROTTLED: Final = "throttled"  # HTTP 429
SERVER_ERROR: Final = "server_error"  # HTTP 5xx
REJECTED: Final = "rejected"  # another 4xx, or a redirect
TOO_LARGE: Final = "too_large"  # more than max_response_bytes
AUDIT_UNAVAILABLE: Final = "audit_unavailable"  # it cannot be audited: nothing was sent, or its answer is withheld
INTERNAL: Final = "internal"  # an error of this package or of your own code, named in detail
