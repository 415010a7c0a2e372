"""Calls of SQS at half of botocore's CPU: signed and posted by botocore's own parts, without its machinery between.

A client call spends most of its time on hooks, the user agent, endpoint rules and parsing by shape; a submitter and a
worker most of theirs on client calls. Here only success is understood. Whatever else comes (an error, a redirect, a
connection that was closed) is left to the client: it makes the same call once more, and knows of retries, clock skew
and error codes. Only time that is over is over here, too.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import orjson

OPERATIONS: Mapping[str, str] = {
    "receive_message": "ReceiveMessage",
    "send_message_batch": "SendMessageBatch",
    "delete_message_batch": "DeleteMessageBatch",
    "change_message_visibility_batch": "ChangeMessageVisibilityBatch",
}
"""What may be posted, in boto3's spelling and in SQS's: all that is done for every few messages."""
_OK = 200
_SOCKET_OPTIONS = [  # head and body go out in two writes: without the first the second waits for an acknowledgement
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]


class SqsPoster:
    """Posts calls to one region's SQS. Thread-safe.

    :param client: whose endpoint, region, and settings of connections are used
    :param credentials: botocore's; asked at every call, for they may be renewed. None: the client says what is missing
    :param verify: as botocore has it: True, or the path of a PEM bundle
    """

    def __init__(self, client: Any, credentials: Any, *, verify: bool | str) -> None:
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        self._url = client.meta.endpoint_url
        self._region = client.meta.region_name
        self._credentials = credentials
        config = client.meta.config
        self._session = URLLib3Session(
            verify=verify,
            proxies=get_environ_proxies(self._url) if config.proxies is None else config.proxies,
            timeout=(config.connect_timeout, config.read_timeout),
            max_pool_connections=config.max_pool_connections,
            socket_options=_SOCKET_OPTIONS,
        )

    def post(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer; None when the client should be asked instead.

        :param operation: one of :data:`OPERATIONS`, in boto3's spelling
        :raises HTTPClientError: botocore's, when there was none in time
        """
        from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

        if self._credentials is None:
            return None
        try:
            answer = self._session.send(self._signed(OPERATIONS[operation], orjson.dumps(parameters)))
            if answer.status_code != _OK:
                return None
            found = orjson.loads(answer.content)
        except (ConnectionClosedError, EndpointConnectionError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._session.close()

    def _signed(self, operation: str, body: bytes) -> Any:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "User-Agent": "airflow-provider-ai",
            "X-Amz-Target": f"AmazonSQS.{operation}",
        }
        request = AWSRequest("POST", f"{self._url}/", headers=headers, data=body)
        SigV4Auth(self._credentials.get_frozen_credentials(), "sqs", self._region).add_auth(request)
        return request.prepare()
