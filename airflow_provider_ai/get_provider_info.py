"""What Airflow's providers manager learns about this distribution.

Airflow calls this in every process it starts, so it imports nothing beyond the package itself.
`package-name` must equal the distribution's name: Airflow drops a provider whose two names differ.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_ai import __version__

TEXT = ["string", "null"]
NUMBER = ["number", "null"]


def get_provider_info() -> dict[str, Any]:
    """Return the provider description in the shape of Airflow's `provider_info.schema.json`."""
    return {
        "package-name": "airflow-provider-ai",
        "name": "AI integration patterns",
        "description": "Synchronous, asynchronous and batch integration patterns for AI services.",
        "versions": [__version__],
        "connection-types": [_ai_endpoint(), _ai_jobs(), _ai_keys(), _ai_audit()],
        "config": {
            "ai_patterns": {
                "description": "The AI integration patterns.",
                "options": {
                    "webhook_conn_id": {
                        "description": "Connection of type AI jobs that the API server takes webhooks of workers for.",
                        "version_added": __version__,
                        "type": "string",
                        "example": None,
                        "default": "ai_jobs",
                    },
                    "audit_conn_id": {
                        "description": "Connection of type AI audit; without it nothing is audited.",
                        "version_added": __version__,
                        "type": "string",
                        "example": None,
                        "default": "ai_audit",
                    },
                    "audit_required": {
                        "description": "Whether tasks fail where that connection is missing.",
                        "version_added": __version__,
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                },
            },
        },
        "task-decorators": [
            {"name": "ai_call", "class-name": "airflow_provider_ai.decorators.ai_call.ai_call_task"},
        ],
    }


def _ai_endpoint() -> dict[str, Any]:
    """The connection form of a model endpoint. Its fields are the extras that `hooks/ai_endpoint.py` reads."""
    return {
        "connection-type": "ai_endpoint",
        "hook-class-name": "airflow_provider_ai.hooks.ai_endpoint.AIEndpointHook",
        "hook-name": "AI endpoint",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login"],
            # With no port, the Test button of Airflow up to 3.3.2 refuses a stored connection (apache/airflow#73298).
            "relabeling": {"host": "Endpoint URL", "port": "Port (for Test)", "password": "API key"},
            "placeholders": {"host": "https://models.example.org", "port": "443"},
        },
        "conn-fields": {
            "protocol": _field(
                "Protocol",
                "What the endpoint speaks: Open Inference Protocol V2 (Triton, MLServer, KServe) over HTTP or, with a "
                "URL grpc(s)://host:port, over gRPC; OpenAI-compatible chat or embeddings; or plain JSON.",
                type=["string"],
                enum=["open-inference", "open-inference-grpc", "openai-chat", "openai-embeddings", "json"],
                default="open-inference",
            ),
            "model": _field("Model", "The model's name at the endpoint.", type=["string"]),
            "path": _field("Path", "Replaces the protocol's own path, e.g. /predict.", type=TEXT),
            "verify_tls": _field("Verify TLS", "Check the server's certificate.", type=["boolean"], default=True),
            "ca_file": _field("CA file", "PEM bundle on the workers to trust instead of the system's.", type=TEXT),
            "client_cert_file": _field("Client certificate file", "PEM file, for mutual TLS.", type=TEXT),
            "client_key_file": _field("Client key file", "PEM file, for mutual TLS.", type=TEXT),
            "price_per_million_input_tokens": _price("Price per 1M input tokens"),
            "price_per_million_output_tokens": _price("Price per 1M output tokens"),
            "price_per_call": _price("Price per call"),
            "p99_seconds": _field(
                "p99 latency (seconds)",
                "What 99 of 100 answers take at most. A synchronous call with a shorter deadline is refused.",
                type=NUMBER,
                exclusiveMinimum=0,
            ),
            "headers": _field("Headers", "Further request headers, e.g. a tenant.", type=["object", "null"]),
            "keys_conn_id": _field(
                "Keys connection",
                "Connection of type AI keys: encrypts checkpoints, stored outputs and last good answers.",
                type=TEXT,
            ),
        },
    }


def _ai_jobs() -> dict[str, Any]:
    """The connection form of asynchronous jobs. Its fields are the extras that `hooks/ai_jobs.py` reads."""
    return {
        "connection-type": "ai_jobs",
        "hook-class-name": "airflow_provider_ai.hooks.ai_jobs.AIJobsHook",
        "hook-name": "AI jobs",
        "ui-field-behaviour": {
            "hidden-fields": ["schema"],
            "relabeling": {
                "host": "SQS endpoint or Kafka brokers",
                "port": "Port (for Test)",
                "login": "Kafka user",
                "password": "Kafka password",
            },
            "placeholders": {"host": "empty for AWS; https://… ; or broker-1:9093,broker-2:9093", "port": "443"},
        },
        "conn-fields": {
            "kind": _field(
                "Kind",
                "What carries the messages: SQS, SQS FIFO (a tenant's jobs one after the other), or Kafka.",
                type=["string"],
                enum=["sqs", "sqs-fifo", "kafka"],
                default="sqs",
            ),
            "request_queue": _field("Request queue", "Name of the queue or topic of requests.", type=["string"]),
            "result_queue": _field("Result queue", "Name of the queue or topic of results.", type=["string"]),
            "dead_letter_queue": _field(
                "Dead letter queue", "Name of the queue or topic of what could not be dealt with.", type=["string"]
            ),
            "claim_check_uri": _field(
                "Claim checks",
                "Folder of payloads and results that are too large for a message: s3://… or an absolute path that all "
                "workers share.",
                type=["string"],
            ),
            "inline_limit_bytes": _field(
                "Inline limit (bytes)", "Larger ones go there; 65536 when empty.", type=["integer", "null"], minimum=0
            ),
            "store_conn_id": _field(
                "Store connection", "Connection of the store of jobs; ai_store when empty.", type=TEXT
            ),
            "region": _field("AWS region", "Of SQS; the AWS connection's or environment's when empty.", type=TEXT),
            "aws_conn_id": _field(
                "AWS connection", "Keys for SQS and S3; those of the AWS environment when empty.", type=TEXT
            ),
            "consumer_group": _field("Kafka consumer group", "Its prefix; airflow-ai when empty.", type=TEXT),
            "session_timeout_seconds": _field(
                "Kafka session (s)",
                "After which a member of the group that is silent counts as dead; 15 when empty.",
                type=NUMBER,
                minimum=1,
            ),
            "security_protocol": _field(
                "Kafka security", "TLS unless the brokers are on this machine.", type=TEXT, enum=_KAFKA_SECURITY
            ),
            "sasl_mechanism": _field("Kafka SASL", "With user and password.", type=TEXT, enum=_SASL),
            "ca_file": _field("CA file", "PEM bundle on the workers to trust instead of the system's.", type=TEXT),
            "client_cert_file": _field("Client certificate file", "PEM file, for mutual TLS.", type=TEXT),
            "client_key_file": _field("Client key file", "PEM file, for mutual TLS.", type=TEXT),
            "allow_plaintext": _field(
                "Allow plaintext",
                "Leave TLS out beyond this machine: never with health data.",
                type=["boolean"],
                default=False,
            ),
            "webhook_secret": _field(
                "Webhook secret", "whsec_…: what workers sign with (Standard Webhooks).", type=TEXT, format="password"
            ),
            "webhook_second_secret": _field(
                "Second webhook secret", "Also accepted, while keys are rotated.", type=TEXT, format="password"
            ),
            "keys_conn_id": _field(
                "Keys connection",
                "Connection of type AI keys: encrypts payloads, results and dead letters, in the queues and at rest.",
                type=TEXT,
            ),
        },
    }


def _ai_keys() -> dict[str, Any]:
    """The connection form of keys. Its fields are the extras that `hooks/ai_keys.py` reads."""
    return {
        "connection-type": "ai_keys",
        "hook-class-name": "airflow_provider_ai.hooks.ai_keys.AIKeysHook",
        "hook-name": "AI keys",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login"],
            "relabeling": {
                "host": "KMS endpoint",
                "port": "Port (for Test)",
                "password": "Keyring (local) or hash key (KMS)",
            },
            "placeholders": {"host": "empty for AWS", "port": "443"},
        },
        "conn-fields": {
            "kind": _field(
                "Kind",
                "local: a keyring made by `airflow-ai keys generate`; kms: a key that stays in AWS KMS.",
                type=["string"],
                enum=["local", "kms"],
                default="local",
            ),
            "tenant": _field("Tenant", "Data of one cannot be read as another's; default when empty.", type=TEXT),
            "key_id": _field("KMS key", "ARN or id of the key that wraps data keys; no alias.", type=TEXT),
            "older_key_ids": _field("Older KMS keys", "With commas between them: these only decrypt.", type=TEXT),
            "wrapped_hash_key": _field(
                "Wrapped hash key", "In place of a password: the hash key, encrypted by KMS.", type=TEXT
            ),
            "region": _field("AWS region", "Of KMS; the AWS connection's or environment's when empty.", type=TEXT),
            "aws_conn_id": _field(
                "AWS connection", "Credentials for KMS; those of the AWS environment when empty.", type=TEXT
            ),
            "data_key_seconds": _field(
                "Data key lifetime (seconds)",
                "How long a data key is used; so long a revoked key may still work. 300 when empty.",
                type=NUMBER,
                exclusiveMinimum=0,
            ),
            "data_key_messages": _field(
                "Messages per data key", "1048576 when empty.", type=["integer", "null"], minimum=2
            ),
            "data_key_bytes": _field(
                "Bytes per data key", "17179869184 when empty.", type=["integer", "null"], minimum=1
            ),
        },
    }


def _ai_audit() -> dict[str, Any]:
    """The connection form of the audit. Its fields are the extras that `hooks/audit.py` reads."""
    return {
        "connection-type": "ai_audit",
        "hook-class-name": "airflow_provider_ai.hooks.audit.AIAuditHook",
        "hook-name": "AI audit",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login"],
            "relabeling": {"host": "Folder of heads", "port": "Port (for Test)", "password": "Key of record keys"},
            "placeholders": {"host": "s3://audit-heads/ai or an absolute path", "port": "443"},
        },
        "conn-fields": {
            "signing_key": _field(
                "Signing key",
                "Ed25519 private key (PEM) that heads are signed with: airflow-ai audit keygen.",
                type=TEXT,
                format="password",
            ),
            "purpose": _field("Purpose of use", "A word such as HL7's TREAT or HOPERAT.", type=TEXT),
            "on_audit_failure": _field(
                "On audit failure",
                "fail: what cannot be audited is not done; continue: it is, and the loss is audited.",
                type=["string"],
                enum=["fail", "continue"],
                default="fail",
            ),
            "store_conn_id": _field(
                "Store connection",
                "Of the store of events; its role needs INSERT only. ai_store when empty.",
                type=TEXT,
            ),
            "aws_conn_id": _field("AWS connection", "For heads on S3; aws_default when empty.", type=TEXT),
            "object_lock": _field(
                "Object Lock",
                "Of heads on S3; none only for a bucket that has none.",
                type=["string"],
                enum=["compliance", "governance", "none"],
                default="compliance",
            ),
            "retain_days": _field(
                "Retention (days)", "How long S3 refuses to delete a head; 2192 when empty.", type=["integer", "null"]
            ),
            "timeout_seconds": _field("Timeout (seconds)", "Of keeping an event; 5 when empty.", type=NUMBER),
            "head_interval_seconds": _field("Head interval (seconds)", "10 when empty.", type=NUMBER),
            "head_lag_seconds": _field(
                "Head lag (seconds)",
                "Without a head for so long, nothing is audited any more; 120 when empty.",
                type=NUMBER,
            ),
        },
    }


_KAFKA_SECURITY = ["ssl", "sasl_ssl", "plaintext", "sasl_plaintext", None]
_SASL = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", None]


def _price(label: str) -> dict[str, Any]:
    return _field(label, "USD; for the cost shown while a batch runs.", type=NUMBER, minimum=0)


def _field(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": schema}
