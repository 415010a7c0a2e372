"""The switch for protected health information (PHI), and all that must hold while it is on.

One switch that cannot be half-applied: any party to a task that says ``phi`` turns the whole policy on for all of them,
and what cannot be protected refuses to run. A pure function of facts, decided when a DAG is parsed as far as they are
known then, and always again before anything is sent. All refusals are told at once, each with what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from airflow_provider_ai.core.config import EndpointSettings, StorageOptions, require
from airflow_provider_ai.core.job_settings import WebhookSettings
from airflow_provider_ai.core.phi_transit import (
    Refusal,
    database_refusals,
    endpoint_refusals,
    environment_refusals,
    https_refusals,
    storage_refusals,
    transport_refusals,
    webhook_refusals,
)
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import PhiPolicyError, SpecError

CONFIG_SECTION, CONFIG_KEY = "ai_provider", "phi"
ENVIRONMENT_VARIABLE = "AIRFLOW__AI_PROVIDER__PHI"
"""Airflow's own name for ``[ai_provider] phi``; the command line, which has no Airflow, reads it as well."""

Audit = Literal["none", "fail-open", "fail-closed"]
AUDITS: tuple[Audit, ...] = ("none", "fail-open", "fail-closed")
_TRUE, _FALSE = ("true", "t", "1", "yes", "on"), ("false", "f", "0", "no", "off", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phi:
    """The switch as one party sees it, and what protects the data besides what the other settings say.

    :param on: PHI is handled; other parties may say so, too
    :param encryption: what is stored and queued goes through an encrypting codec
    :param audit: what happens to a call that cannot be audited: it is made (``fail-open``) or not (``fail-closed``)
    """

    on: bool = False
    encryption: bool = False
    audit: Audit = "none"

    def __post_init__(self) -> None:
        require(isinstance(self.on, bool), "phi must be true or false", self.on)
        require(isinstance(self.encryption, bool), "encryption must be true or false", self.encryption)
        require(self.audit in AUDITS, f"audit must be one of {AUDITS}", self.audit)


OFF = Phi()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhiFacts:
    """What is known of a task; what is absent is not there, or not known yet.

    :param endpoints: part → endpoint; fallback endpoints are parts of their own
    :param databases: part (``store``, ``sink``) → SQLAlchemy URL
    :param folders: part (``checkpoint``, ``dataset``, ``claim check``, ``output``) → path or URI
    :param services: part (``KMS``) → URL of a service that is reached over https
    :param environ: where the switch for the whole package and ``AWS_ENDPOINT_URL…`` are looked up
    :param records: the task reads records: then ``columns`` must say which fields of them
    :param columns: the allow-list; None for none given
    :param asked: fields that the request sends or the prompt names, the redaction rules' included
    :param through_airflow: which way data would go through Airflow's database in clear; empty for none
    """

    phi: Phi = field(default_factory=Phi)
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict)
    transport: TransportSettings | None = None
    webhook: WebhookSettings | None = None
    databases: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    storage: StorageOptions | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    records: bool = False
    columns: Sequence[str] | None = None
    asked: Sequence[str] = ()
    through_airflow: Sequence[str] = ()

    @property
    def on(self) -> bool:
        """Whether the policy holds: whoever says so says it for the whole task."""
        parties = (*self.endpoints.values(), self.transport)
        return switched_on(self.environ) or self.phi.on or any(party.phi for party in parties if party is not None)


def switched_on(environ: Mapping[str, str]) -> bool:
    """What the environment says for the whole package.

    :raises SpecError: a word that means neither: it must not be taken for "off"
    """
    word = environ.get(ENVIRONMENT_VARIABLE, "").strip().lower()
    if word in _TRUE:
        return True
    if word not in _FALSE:
        raise SpecError(f"{ENVIRONMENT_VARIABLE} must be true or false")
    return False


def refusals(facts: PhiFacts, *, parsing: bool = False) -> tuple[Refusal, ...]:
    """Everything that must not be, in a fixed order; none while the switch is off.

    :param parsing: a DAG is being parsed: what connections and keys say is not known yet
    """
    if not facts.on:
        return ()
    found = [*_in_transit(facts), *_necessary(facts)]
    return tuple(found if parsing else [*found, *_at_rest(facts), *_audited(facts)])


def require_protected(facts: PhiFacts, *, parsing: bool = False) -> bool:
    """Whether PHI is handled, in which case nothing speaks against it.

    :raises PhiPolicyError: for everything that does
    """
    found = refusals(facts, parsing=parsing)
    if found:
        raise PhiPolicyError(_message(found), refusals=tuple(map(str, found)))
    return facts.on


def _message(found: Sequence[Refusal]) -> str:
    many = f"{len(found)} things" if len(found) > 1 else "1 thing"
    numbered = " ".join(f"({number}) {each}." for number, each in enumerate(found, start=1))
    return f"phi is on and {many} would leave data unprotected; nothing was sent. {numbered}"


def _in_transit(facts: PhiFacts) -> Iterator[Refusal]:
    for part, endpoint in facts.endpoints.items():
        yield from endpoint_refusals(part, endpoint)
    if facts.transport is not None:
        yield from transport_refusals("transport", facts.transport)
    if facts.webhook is not None:
        yield from webhook_refusals("webhook", facts.webhook)
    for part, url in facts.databases.items():
        yield from database_refusals(part, url)
    for part, uri in facts.folders.items():
        yield from storage_refusals(part, uri, facts.storage)
    for part, url in facts.services.items():
        yield from https_refusals(part, "endpoint_url", url)
    yield from environment_refusals(facts.environ)


def _necessary(facts: PhiFacts) -> Iterator[Refusal]:
    if facts.records and facts.columns is None:
        fix = "give columns=[…]: the fields the model needs and no others"
        yield Refusal(part="columns", what="every field of a record would be sent", fix=fix)
    if facts.columns is not None:
        more = sorted(set(facts.asked) - set(facts.columns))
        if more:
            fix = "add them to columns if the model needs them, or take them out"
            yield Refusal(part="columns", what=f"fields are asked for that are not in it: {_names(more)}", fix=fix)
    for way in facts.through_airflow:
        fix = "let data pass by Airflow: a reference in, a reference out (docs/minimum-necessary.md)"
        yield Refusal(part="airflow", what=f"{way}, in clear, in Airflow's database", fix=fix)


def _at_rest(facts: PhiFacts) -> Iterator[Refusal]:
    if not facts.phi.encryption:
        what = "what is stored and queued would not be encrypted"
        yield Refusal(part="encryption", what=what, fix="name a key ([encryption] of a spec, keys_conn_id in Airflow)")


def _audited(facts: PhiFacts) -> Iterator[Refusal]:
    if facts.phi.audit == "none":
        what = "nobody could tell later who has seen what"
        yield Refusal(part="audit", what=what, fix="configure an audit log that fails closed")
    elif facts.phi.audit == "fail-open":
        what = "calls would be made that the audit log does not hold"
        yield Refusal(part="audit", what=what, fix="let it fail closed")


def _names(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(map(repr, shown[:20])) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
