"""SQS as a service: clients with bounded calls, and its errors in our words.

Two clients, shared by the queues of a transport and by their threads: a long poll must outlast its wait, and nothing
else may take so long. botocore's texts may quote what was sent, so an error keeps only the service's own word for it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_ai.adapters.endpoints.tls import tls_refusal
from airflow_provider_ai.adapters.queues.sqs_poster import OPERATIONS, SqsPoster
from airflow_provider_ai.core.hosts import is_loopback
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import QueueError, QueueUnavailableError, SpecError

LONGEST_POLL_SECONDS = 20
CONNECTIONS = 64
_ENOUGH_FOR_RETRIES_SECONDS = 9.0
_BACKOFF_SECONDS = 3.0  # of botocore's standard mode before the second and third try, at most
_TRIES = 3
_BUSY = re.compile(r".*Throttl.*|OverLimit|RequestTimeout|SlowDown|InternalError|InternalFailure|ServiceUnavailable")
_GONE = re.compile(r"NonExistentQueue|QueueDoesNotExist")
_REFUSED = re.compile(
    r"AccessDenied.*|.*AccessDenied|AuthFailure|InvalidClientTokenId|UnrecognizedClient.*|SignatureDoesNotMatch"
    r"|InvalidSignature.*|IncompleteSignature|ExpiredToken.*|MissingAuthenticationToken.*|OptInRequired|InvalidAccessKeyId"
)


def word_of(code: object) -> str:
    """The service's word for an error, however a service writes it; ``Unknown`` for what is none."""
    word = str(code).rpartition(".")[2].removesuffix("Exception")
    return word if re.fullmatch(r"\w{1,80}", word) else "Unknown"


class SqsService:
    """Makes calls. Thread-safe.

    :raises SpecError: for a region or credentials that cannot be had
    """

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._session: Any = None
        self._made: dict[bool, Any] = {}
        self._posters: dict[bool, SqsPoster] = {}

    def call(self, queue: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Carry out an operation on a queue.

        :param queue: its name, for messages
        :param operation: in boto3's spelling
        :raises QueueUnavailableError: when SQS cannot be reached, is throttled or out of order
        :raises QueueError: when it refuses
        """
        polling = operation == "receive_message"
        client = self._client(polling=polling)
        with self._explained(queue):
            if operation in OPERATIONS:
                posted = self._poster(client, polling=polling).post(operation, parameters)
                if posted is not None:
                    return posted
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
        return answer

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._lock:
            closing = [*self._made.values(), *self._posters.values()]
        for each in closing:
            each.close()

    def _client(self, *, polling: bool) -> Any:
        from botocore.exceptions import BotoCoreError

        with self._lock:
            if polling not in self._made:
                try:
                    self._session = self._session or _make_session(self._settings)
                    self._made[polling] = _make_client(self._session, self._settings, polling=polling)
                except SpecError:
                    raise
                except (BotoCoreError, ValueError) as error:
                    word = type(error).__name__
                    raise SpecError(f"no SQS client can be made ({word}): check region and profile") from None
            return self._made[polling]

    def _poster(self, client: Any, *, polling: bool) -> SqsPoster:
        with self._lock:
            if polling not in self._posters:
                verify = _trusted(self._settings)
                self._posters[polling] = SqsPoster(client, self._session.get_credentials(), verify=verify)
            return self._posters[polling]

    @contextmanager
    def _explained(self, queue: str) -> Iterator[None]:
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        unreachable = (exceptions.HTTPClientError, exceptions.ConnectionError, ResponseParserError, OSError)
        try:
            yield
        except exceptions.ClientError as error:
            explained = _refusal(queue, error.response)
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
            explained = QueueError(f"{queue}: there are no AWS credentials in the environment; give some, then retry")
        except unreachable as error:
            explained = _unreachable(queue, error)
        except exceptions.BotoCoreError as error:
            explained = QueueError(f"{queue}: unexpected {type(error).__name__}")
        else:
            return
        raise explained from None


def _unreachable(queue: str, error: Exception) -> QueueError:
    refused = tls_refusal(error)
    if refused is None:
        word = type(error).__name__
        return QueueUnavailableError(f"{queue}: SQS does not answer ({word}); a retry can help")
    return QueueError(
        f"{queue}: TLS to SQS fails ({refused}); nothing was sent. Check endpoint_url and ca_file; a retry cannot help"
    )


def _refusal(queue: str, response: dict[str, Any]) -> QueueError:
    word = word_of(response.get("Error", {}).get("Code"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status == 429 or _BUSY.fullmatch(word):
        return QueueUnavailableError(f"{queue}: SQS is busy or out of order ({word}); a retry can help")
    if _GONE.fullmatch(word):
        return QueueGoneError(f"{queue}: there is no such queue; `airflow-ai queues create` makes it")
    if word == "QueueDeletedRecently":
        return QueueUnavailableError(f"{queue}: SQS lets a queue be made again 60 s after it was deleted; then retry")
    if _REFUSED.fullmatch(word):
        return QueueError(f"{queue}: SQS refuses the credentials or their rights ({word}); correct them, then retry")
    return RefusedCallError(f"{queue}: SQS refuses the call ({word}); a retry cannot help", word)


class QueueGoneError(QueueError):
    """There is no queue of that name."""


class RefusedCallError(QueueError):
    """SQS found something wrong with a call as a whole. ``word``: what, in its own words."""

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.word = word


def _make_session(settings: TransportSettings) -> Any:
    """What both clients have in common; it loads the description of SQS once for the two."""
    import boto3

    return boto3.session.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        aws_session_token=settings.session_token,
        region_name=settings.region,
    )


def _make_client(session: Any, settings: TransportSettings, *, polling: bool) -> Any:
    from botocore.config import Config

    seconds, tries = _limits(settings.call_timeout_seconds, polling=polling)
    config = Config(
        connect_timeout=seconds,
        read_timeout=seconds + (LONGEST_POLL_SECONDS if polling else 0),
        retries={"mode": "standard", "total_max_attempts": tries},
        max_pool_connections=CONNECTIONS,
        parameter_validation=False,  # ours are of the right types; it is a tenth of a call's CPU
        tcp_keepalive=True,
        user_agent="airflow-provider-ai",  # botocore puts its own together for every call: another tenth
        **({"proxies": {}} if settings.endpoint_url and settings.local else {}),
    )
    client = session.client(
        "sqs",
        endpoint_url=settings.endpoint_url,
        region_name=session.region_name or ("us-east-1" if settings.endpoint_url else None),
        verify=_trusted(settings),
        config=config,
    )
    _refuse_plaintext(settings, client.meta.endpoint_url)
    return client


def _trusted(settings: TransportSettings) -> bool | str:
    """Whose certificates count: the settings' authority, the AWS environment's, or the system's."""
    return settings.ca_file or os.environ.get("AWS_CA_BUNDLE") or True


def _refuse_plaintext(settings: TransportSettings, url: str) -> None:
    """An endpoint may also come from AWS's environment or configuration files, where the settings do not see it."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not settings.allow_plaintext and not is_loopback(parts.hostname or ""):
        raise SpecError("the SQS endpoint of the AWS configuration must be https:// (or set allow_plaintext)")


def _limits(timeout_seconds: float, *, polling: bool) -> tuple[float, int]:
    """What one try may take, and how many there are; a poll is not repeated here, for its caller polls anyway."""
    if polling or timeout_seconds < _ENOUGH_FOR_RETRIES_SECONDS:
        return timeout_seconds, 1
    return (timeout_seconds - _BACKOFF_SECONDS) / _TRIES, _TRIES
