"""Settings of a transport: which queues, where they are, and how they are reached. Frozen, checked where they are made.

What travels over them may be protected health information, so a connection without TLS is refused unless it stays on
this machine or ``allow_plaintext`` says that the network itself is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Literal
from urllib.parse import urlsplit

from airflow_provider_ai.core.config import is_number, is_whole, require
from airflow_provider_ai.core.hosts import is_loopback
from airflow_provider_ai.exceptions import SpecError

Kind = Literal["sqs", "sqs-fifo", "kafka"]
KINDS: tuple[Kind, ...] = ("sqs", "sqs-fifo", "kafka")
SecurityProtocol = Literal["ssl", "sasl_ssl", "plaintext", "sasl_plaintext"]
SECURITY_PROTOCOLS: tuple[SecurityProtocol, ...] = ("ssl", "sasl_ssl", "plaintext", "sasl_plaintext")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_ONLY_SQS = ("endpoint_url", "region", "access_key", "secret_key", "session_token", "kms_key_id", "max_receives")
_ONLY_KAFKA = (
    "bootstrap_servers",
    "consumer_group",
    "session_timeout_seconds",
    "security_protocol",
    "client_cert_file",
    "client_key_file",
    "sasl_mechanism",
    "sasl_username",
    "sasl_password",
    "partitions",
    "replication_factor",
)
_NAME_OF_KIND = {
    "sqs": (re.compile(r"[A-Za-z0-9_-]{1,80}"), "1-80 letters, digits, '-' and '_'"),
    "sqs-fifo": (re.compile(r"(?=.{6,80}$)[A-Za-z0-9_-]+\.fifo"), "1-75 letters, digits, '-' and '_', then '.fifo'"),
    "kafka": (re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}"), "1-249 letters, digits, '.', '-' and '_'"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """Three queues of one service.

    :param kind: ``sqs``, ``sqs-fifo`` (one tenant's jobs one after the other) or ``kafka`` (the queues are topics)
    :param call_timeout_seconds: what one call of the service may take, its retries included; a long poll adds its wait
    :param ca_file: PEM bundle to trust instead of the system's
    :param allow_plaintext: TLS may be left out beyond this machine, too
    :param phi: health data travels there: the whole policy of :mod:`airflow_provider_ai.core.phi_policy` holds
    :param endpoint_url: SQS elsewhere than at AWS
    :param region: of SQS; None for the one of the AWS environment. So it is with the credentials
    :param kms_key_id: KMS key of the queues that ``airflow-ai queues create`` makes; None for SQS's own
    :param max_receives: deliveries of a request after which SQS itself makes it a dead letter (``maxReceiveCount``).
        More than a worker's ``max_attempts``, which ends a job with a better reason
    :param bootstrap_servers: of Kafka, ``host:port`` separated by commas
    :param consumer_group: of Kafka; each topic is consumed by the group ``<consumer_group>.<topic>``
    :param session_timeout_seconds: after which a member of the group that is silent counts as dead
    :param security_protocol: of Kafka; None for ``ssl`` (``sasl_ssl`` with a mechanism), and ``plaintext`` on loopback
    :param client_cert_file: PEM certificate for mutual TLS, with ``client_key_file``
    :param partitions: of the topics that ``airflow-ai queues create`` makes: at most so many workers share the work
    :param replication_factor: of those topics; None for the brokers' default
    """

    kind: Kind
    request_queue: str
    result_queue: str
    dead_letter_queue: str
    call_timeout_seconds: float = 15.0
    ca_file: str | None = None
    allow_plaintext: bool = False
    phi: bool = False

    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    kms_key_id: str | None = None
    max_receives: int = 30

    bootstrap_servers: str | None = None
    consumer_group: str = "airflow-ai"
    session_timeout_seconds: float = 15.0
    security_protocol: SecurityProtocol | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    partitions: int = 12
    replication_factor: int | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.phi, bool), "phi must be true or false", self.phi)
        require(self.kind in KINDS, f"kind must be one of {KINDS}", self.kind)
        self._check_names()
        seconds = self.call_timeout_seconds
        require(is_number(seconds) and seconds > 0, "call_timeout_seconds must be a number > 0 (seconds)", seconds)
        self._refuse(_ONLY_SQS if self.kind == "kafka" else _ONLY_KAFKA)
        if self.kind == "kafka":
            self._check_kafka()
        else:
            self._check_sqs()

    @property
    def fifo(self) -> bool:
        """Whether the queues keep the order of a tenant's messages."""
        return self.kind == "sqs-fifo"

    @property
    def local(self) -> bool:
        """Whether the service is on this machine."""
        return all(map(is_loopback, self._hosts()))

    @property
    def queues(self) -> tuple[str, str, str]:
        """The names: requests, results, dead letters."""
        return self.request_queue, self.result_queue, self.dead_letter_queue

    @property
    def security(self) -> SecurityProtocol:
        """How Kafka is spoken to."""
        if self.security_protocol is not None:
            return self.security_protocol
        if self.local:
            return "sasl_plaintext" if self.sasl_mechanism else "plaintext"
        return "sasl_ssl" if self.sasl_mechanism else "ssl"

    def _hosts(self) -> Sequence[str]:
        if self.kind == "kafka":
            servers = (self.bootstrap_servers or "").split(",")
            return [server.strip().rpartition(":")[0] for server in servers]
        return [urlsplit(self.endpoint_url).hostname or ""] if self.endpoint_url else [""]

    def _check_names(self) -> None:
        pattern, words = _NAME_OF_KIND[self.kind]
        for name in ("request_queue", "result_queue", "dead_letter_queue"):
            value = getattr(self, name)
            fits = isinstance(value, str) and pattern.fullmatch(value) is not None
            require(fits, f"{name} must be a name of kind {self.kind!r}: {words}", value)
        require(len(set(self.queues)) == 3, "request, result and dead letter queue must be three queues", self.queues)

    def _refuse(self, names: Sequence[str]) -> None:
        defaults = {known.name: known.default for known in fields(self) if known.default is not MISSING}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise SpecError(f"{name} must be absent with kind {self.kind!r}, which does not have it")

    def _check_sqs(self) -> None:
        require(is_whole(self.max_receives, 1), "max_receives must be an integer ≥ 1", self.max_receives)
        paired = (self.access_key is None) == (self.secret_key is None)
        require(paired, "access_key and secret_key must come together", "one of them")
        if self.endpoint_url is None:
            return
        parts = urlsplit(self.endpoint_url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        require(known, "endpoint_url must look like https://host[:port], without credentials", "something else")
        safe = parts.scheme == "https" or self.local or self.allow_plaintext
        require(safe, "endpoint_url must be https:// unless it is on this machine (or set allow_plaintext)", "http")

    def _check_kafka(self) -> None:
        servers = (self.bootstrap_servers or "").split(",")
        known = all(re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,@]+):\d{1,5}", server.strip()) for server in servers)
        require(known, "bootstrap_servers must be host:port, separated by commas", self.bootstrap_servers)
        named = re.fullmatch(r"[A-Za-z0-9._-]{1,200}", self.consumer_group) is not None
        require(named, "consumer_group must be letters, digits, '.', '-' and '_'", self.consumer_group)
        session = self.session_timeout_seconds
        require(is_number(session) and session >= 1, "session_timeout_seconds must be a number ≥ 1", session)
        require(is_whole(self.partitions, 1), "partitions must be an integer ≥ 1", self.partitions)
        factor = self.replication_factor
        require(factor is None or is_whole(factor, 1), "replication_factor must be an integer ≥ 1 or absent", factor)
        keyed = self.client_key_file is None or self.client_cert_file is not None
        require(keyed, "client_key_file must come with client_cert_file", "the key alone")
        self._check_security()

    def _check_security(self) -> None:
        mechanism, protocol = self.sasl_mechanism, self.security
        known = mechanism is None or mechanism in SASL_MECHANISMS
        require(known, f"sasl_mechanism must be one of {SASL_MECHANISMS} or absent", mechanism)
        require(protocol in SECURITY_PROTOCOLS, f"security_protocol must be one of {SECURITY_PROTOCOLS}", protocol)
        matching = protocol.startswith("sasl") == (mechanism is not None)
        require(matching, "security_protocol must be a sasl_… one exactly when sasl_mechanism is given", protocol)
        whole = mechanism is None or (self.sasl_username is not None and self.sasl_password is not None)
        require(whole, "sasl_username and sasl_password must come with sasl_mechanism", "not both")
        safe = protocol.endswith("ssl") or self.local or self.allow_plaintext
        require(
            safe, "security_protocol must be ssl or sasl_ssl beyond this machine (or set allow_plaintext)", protocol
        )
