"""``airflow-ai policy``: from a spec to a policy, a script or an error; no secret is needed, and none is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.cli import main
from airflow_provider_ai.core.policies.roles import ROLES
from tests.cli.specs import MINIMAL
from tests.cli.specs import write as write_batch
from tests.support.processes import REPOSITORY

SECRET = "hunter2"
ACCOUNT = ("--account", "123456789012")
JOBS = f"""\
[transport]
kind = "sqs"
request_queue = "in"
result_queue = "out"
dead_letter_queue = "dead"
region = "eu-central-1"
[store]
url = "postgresql+psycopg://ai:{SECRET}@db.example.org/ai"
[claim_check]
uri = "s3://data/claims/"
[encryption]
kind = "kms"
key_id = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
hash_key_env = "NOT_SET"
tenant = "clinic-a"
[audit]
heads = "s3://locked"
hmac_key_env = "NOT_SET"
signing_key_env = "NOT_SET"
[webhook]
url = "https://hooks.example.org/"
secret_env = "NOT_SET"
"""
CALL = """\
[endpoint]
url = "https://models.example.org"
protocol = "json"
model = "m"
api_key_env = "NOT_SET"
[store]
url = "postgresql://db.example.org/ai"
[[fallback]]
kind = "static"
"""
BATCH = (
    MINIMAL.replace('"visits.parquet"', '"s3://data/visits/2026/*.parquet"')
    .replace('"checkpoints"', '"s3://data/checkpoints"')
    .replace("duckdb:///warehouse.duckdb", "postgresql://w.example.org/w")
)


def spec(folder: Path, text: str = JOBS) -> str:
    return str(write_batch(folder, text))


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["policy", *arguments]) == code
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    if code:
        assert out == ""
    return err if code else out


def test_a_policy_is_json_of_what_the_spec_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Queues, claim checks, heads and the key; no secret has to be there."""
    found: Any = json.loads(printed(capsys, "iam", "--role", "worker", spec(tmp_path), *ACCOUNT))
    by_sid = {statement["Sid"]: statement for statement in found["Statement"]}
    assert found["Version"] == "2012-10-17"
    assert by_sid["QueueRequests"]["Resource"] == ["arn:aws:sqs:eu-central-1:123456789012:in"]
    assert by_sid["Payloads"]["Resource"] == ["arn:aws:s3:::data/claims/payload/*"]
    assert by_sid["AuditHeads"]["Resource"] == ["arn:aws:s3:::locked/*"]
    assert by_sid["AuditHeads"]["Action"] == ["s3:PutObject", "s3:PutObjectRetention"]
    assert by_sid["Decrypt"]["Condition"]["StringEquals"]["kms:EncryptionContext:tenant"] == "clinic-a"
    assert by_sid["DenyWithoutTLS"]["Effect"] == "Deny"


def test_a_batch_reads_the_folder_that_its_pattern_is_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of objects are not known; a single file is named as it is."""
    found = printed(capsys, "iam", "--role", "batch", spec(tmp_path, BATCH))
    assert "arn:aws:s3:::data/visits/2026/*" in found
    one = printed(capsys, "iam", "--role", "batch", spec(tmp_path, BATCH.replace("*.parquet", "day.parquet")))
    assert '"arn:aws:s3:::data/visits/2026/day.parquet"' in one


def test_what_is_not_at_aws_needs_no_rights_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Topics of Kafka, local folders, a keyring: an error that says so, and no empty policy."""
    names = JOBS.split("\n", 2)[2].partition("[claim")[0].replace('region = "eu-central-1"\n', "")
    text = '[transport]\nkind = "kafka"\nbootstrap_servers = "k:9092"\n' + names
    text += '[encryption]\nkind = "local"\nkeyring_env = "NOT_SET"\n[audit]\non = false\nheads = "s3://locked"\n'
    assert "uses nothing at AWS" in printed(capsys, "iam", "--role", "worker", spec(tmp_path, text), code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["iam", "--role", "worker"], "account of the queues is not known: set --account"),
        (["iam", "--role", "batch", *ACCOUNT], "must be one of submitter, worker"),
        (["iam", "--role", "worker", "--account", "1"], "12 digits"),
        (["sql", "--role", "batch"], "must be one of submitter, worker"),
        (["sql", "--role", "worker", "--database", "warehouse"], "set [sink], or --table"),
        (["sql", "--role", "worker", "--table", "t"], "--table must be absent"),
        (["sql", "--role", "auditor", "--database", "audit", "--tenant", "a"], "--tenant must be absent"),
        (["sql", "--role", "reader", "--database", "warehouse", "--tenant", "a"], "--tenant must be absent"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_is_wrong_is_said(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, and nothing on stdout that could be applied."""
    assert words in printed(capsys, *arguments, spec(tmp_path), code=2)


def test_only_postgresql_has_these_grants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file has no roles, and a spec without a database has none either."""
    text = JOBS.replace(f"postgresql+psycopg://ai:{SECRET}@db.example.org/ai", "sqlite:///store.db")
    assert "must be a postgresql:// URL" in printed(capsys, "sql", "--role", "worker", spec(tmp_path, text), code=2)
    assert "set [store] url" in printed(capsys, "sql", "--role", "batch", spec(tmp_path, BATCH), code=2)
    unsaid = printed(capsys, "sql", "--role", "batch", "--database", "audit", spec(tmp_path, BATCH), code=2)
    assert "set [audit] store" in unsaid


def test_the_audit_s_tables_are_granted_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the store's, or in the script of a database of their own."""
    insert = 'GRANT INSERT ON "public"."ai_audit_events"'
    assert insert in printed(capsys, "sql", "--role", "worker", spec(tmp_path))
    apart = spec(tmp_path, JOBS.replace("[audit]\n", '[audit]\nstore = "postgresql://audit.example.org/a"\n'))
    assert insert not in printed(capsys, "sql", "--role", "worker", apart)
    alone = printed(capsys, "sql", "--role", "worker", "--database", "audit", apart)
    assert insert in alone
    assert "GRANT SELECT, UPDATE" not in alone
    assert insert not in printed(
        capsys, "sql", "--role", "worker", spec(tmp_path, JOBS.replace("[audit]", "[audit]\non = false"))
    )


def test_the_warehouse_is_the_sink_s_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its table and schema; results of jobs land in one that the command line names."""
    batch = BATCH.replace('table = "predictions"', 'table = "predictions"\nschema = "ml"')
    arguments = ("--database", "warehouse")
    found = printed(capsys, "sql", "--role", "batch", *arguments, spec(tmp_path, batch))
    assert 'GRANT SELECT, INSERT, DELETE ON "ml"."predictions" TO "ai_batch";' in found
    found = printed(capsys, "sql", "--role", "submitter", *arguments, "--table", "t", spec(tmp_path))
    assert 'GRANT SELECT, INSERT, DELETE ON "public"."t" TO "ai_submitter";' in found


def test_a_call_s_spec_has_a_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whose API key need not be there."""
    found = printed(capsys, "sql", "--role", "caller", spec(tmp_path, CALL))
    assert 'GRANT SELECT, INSERT, UPDATE ON "public"."ai_breakers" TO "ai_caller";' in found


def test_a_misspelled_spec_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As by every other command: a place that is overlooked would be one without rights."""
    text = JOBS.replace("heads =", "haeds =")
    assert "did you mean" in printed(capsys, "iam", "--role", "worker", spec(tmp_path, text), *ACCOUNT, code=2)


def test_the_guide_knows_every_role() -> None:
    """docs/least-privilege.md has a row for each."""
    guide = (REPOSITORY / "docs" / "least-privilege.md").read_text("utf-8")
    for role in {role for roles in ROLES.values() for role in roles}:
        assert f"| `{role.value}`" in guide
