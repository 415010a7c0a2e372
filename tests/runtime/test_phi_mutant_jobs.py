"""Encryption of jobs taken away: the search that finds no mark of a job before then finds it in all three places.

The search is that of ``tests/end_to_end/test_phi_in_airflow.py``; nothing but SQS is needed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.audit.signing import new_key_pair
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.phi_policy import Phi
from airflow_provider_ai.core.redaction import Necessary
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.patterns.request_reply import Submission
from airflow_provider_ai.runtime.auditing import Audit
from airflow_provider_ai.runtime.request_reply import open_job_client
from tests.support import canaries
from tests.support.canaries import Canaries
from tests.support.keys import local_keys
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack


@pytest.fixture
def transport(ministack_server: MiniStack, seed: int) -> Iterator[TransportSettings]:
    """Queues of its own."""
    names = {f"{kind}_queue": f"marked-{kind}-{seed}" for kind in ("request", "result", "dead_letter")}
    sqs = ministack_server.client("sqs")
    urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in names.values()]
    access = {"region": REGION, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    yield TransportSettings(kind="sqs", endpoint_url=ministack_server.url, **access, **names)  # type: ignore[arg-type]
    for url in urls:
        sqs.delete_queue(QueueUrl=url)


def submitted(folder: Path, transport: TransportSettings, marks: Canaries) -> None:
    """Two jobs; one is too large for a message."""
    notes = [f"coughs, {marks['note']}", f"coughs, {marks['note']}{' and so on' * 300}"]
    store = f"sqlite:///{folder}/store.db"
    audit = AuditSettings(
        store=store, hmac_key=b"s" * 32, heads=f"{folder}/heads", signing_key=new_key_pair()[0], purpose="TREAT"
    )
    client = open_job_client(
        transport=transport,
        store=store,
        claim_check=ClaimCheckSettings(uri=f"{folder}/claims", inline_limit_bytes=1000),
        keys=local_keys(),
        audit=Audit(settings=audit, actor=Actor(kind="cli", role="submitter", user="u")),
        phi=Phi(on=True),
    )
    with closing(client):
        necessary = Necessary(allowed=("note",), strict=True)
        client.submit(Submission(key="marked"), [{"note": note} for note in notes], necessary=necessary)


@pytest.mark.parametrize("encrypted", [True, False])
def test_marks_of_jobs(
    tmp_path: Path,
    transport: TransportSettings,
    ministack_server: MiniStack,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    encrypted: bool,
) -> None:
    """In the queue, the store and the claim checks, only where nothing encrypts."""
    marks = Canaries.of_seed(seed, "note")
    if not encrypted:
        monkeypatch.setattr("airflow_provider_ai.runtime.request_reply.open_codec", lambda _keys: IdentityCodec())
    submitted(tmp_path, transport, marks)
    messages = canaries.messages(ministack_server.client("sqs"), transport.request_queue)
    assert len(messages) == 2
    found = marks.found(messages | canaries.files(tmp_path))
    if encrypted:
        assert found == {}
    else:
        assert all(any(part in place for place in found) for part in ("message ", "store.db", "/claims/")), found
