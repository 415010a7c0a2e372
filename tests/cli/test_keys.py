"""``airflow-ai keys``: keyrings that are made, and what is said of specs that name none."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from airflow_provider_ai.cli import main
from airflow_provider_ai.cli.call_spec import load_call_spec
from airflow_provider_ai.cli.encryption_spec import encryption_settings
from airflow_provider_ai.cli.job_spec import load_job_spec
from airflow_provider_ai.cli.spec import load_batch_spec
from airflow_provider_ai.core.key_settings import KmsKeys, LocalKeys
from airflow_provider_ai.core.keyring import keyring_text, parse_keyring, text_of
from airflow_provider_ai.exceptions import SpecError
from tests.cli import specs
from tests.support.keys import key, local_keys, new_kms_key
from tests.support.ministack import MiniStack
from tests.support.processes import REPOSITORY

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ENVIRON = {"KEYRING": keyring_text(local_keys("a", "b")), "HASH": text_of(key("hash"))}
LOCAL = '[encryption]\nkind = "local"\nkeyring_env = "KEYRING"\ntenant = "clinic-a"\ndata_key_seconds = 60\n'


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip()


# --- generate


def test_a_keyring_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    """Another one each time, on one line."""
    made = []
    for _ in range(2):
        assert main(["keys", "generate"]) == 0
        made.append(printed(capsys))
    first, second = map(parse_keyring, made)
    assert len({key for keys in (first, second) for _, key in keys.keys} | {first.hash_key, second.hash_key}) == 4
    assert "\n" not in made[0]


def test_a_keyring_gets_its_next_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keyring.json"
    file.write_text(keyring_text(local_keys("old")))
    assert main(["keys", "generate", "--keyring", str(file), "--key-id", "new"]) == 0
    keys = parse_keyring(printed(capsys))
    assert keys.current == "new"
    assert dict(keys.keys)["old"] == key("old")
    assert keys.hash_key == key("hash")


@pytest.mark.parametrize("text", [None, "canary"])
def test_a_keyring_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    file = tmp_path / "keyring.json"
    if text is not None:
        file.write_text(text)
    assert main(["keys", "generate", "--keyring", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"error: {file}:" in said
    assert "canary" not in said


def test_a_hash_key_is_wrapped_by_kms(
    tmp_path: Path, ministack_server: MiniStack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed is no secret, and goes into the same table."""
    for name, value in ministack_server.environment().items():
        monkeypatch.setenv(name, value)
    spec, key_id = tmp_path / "spec.toml", new_kms_key(ministack_server)
    spec.write_text(f'[encryption]\nkind = "kms"\nkey_id = "{key_id}"\n')
    assert main(["keys", "generate", str(spec)]) == 0
    wrapped = printed(capsys)
    spec.write_text(spec.read_text() + f'wrapped_hash_key = "{wrapped}"\n')
    assert main(["keys", "status", str(spec)]) == 0
    assert json.loads(printed(capsys))["usable"] is True
    ministack_server.client("kms").disable_key(KeyId=key_id)
    assert main(["keys", "status", str(spec)]) == 1
    assert "is disabled" in capsys.readouterr().err


# --- rotate and status


@pytest.mark.parametrize("command", ["rotate", "status"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"there is no \[encryption\] in it"),
        ("[encryption]\n", r"there is no \[encryption\] in it"),
        ('[encryption]\nkind = "local"\n', "either 'keyring_env' or 'keyring_file' must be set, got neither"),
        ('[encryption]\nkind = "local"\nkeyring = "canary"\n', "unknown key 'keyring'"),
        (LOCAL + "[store]\nurl = 1\n", "'url' in .store. must be a string"),
    ],
)
def test_specs_that_cannot_be_right(
    command: str,
    text: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEYRING", ENVIRON["KEYRING"])
    spec = tmp_path / "spec.toml"
    spec.write_text(text)
    assert main(["keys", command, str(spec)]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert "canary" not in said


def test_a_deployment_that_keeps_nothing_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made by looking at it."""
    monkeypatch.setenv("KEYRING", ENVIRON["KEYRING"])
    spec = tmp_path / "spec.toml"
    spec.write_text(LOCAL + '[checkpoint]\nuri = "none/"\n[store]\nurl = "sqlite:///none.db"\n')
    assert main(["keys", "rotate", str(spec)]) == 0
    report = json.loads(printed(capsys))
    assert (report["seen"], report["keys"]) == (0, {})
    assert [path.name for path in tmp_path.iterdir()] == ["spec.toml"]


# --- [encryption]


def test_every_kind_of_spec_takes_the_table(tmp_path: Path) -> None:
    wanted = local_keys("a", "b", tenant="clinic-a")
    batch = tmp_path / "batch.toml"
    batch.write_text(specs.MINIMAL + LOCAL)
    found = load_batch_spec(batch, environ=ENVIRON).keys
    assert isinstance(found, LocalKeys)
    assert (found.keys, found.tenant, found.limits.max_age_seconds) == (wanted.keys, "clinic-a", 60)
    call = tmp_path / "call.toml"
    call.write_text(
        '[endpoint]\nurl = "http://h"\nprotocol = "json"\nmodel = "m"\n[[fallback]]\nkind = "static"\nvalue = 1\n'
        + LOCAL
    )
    assert load_call_spec(call, environ=ENVIRON).keys == found
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(
        '[transport]\nkind = "sqs"\nrequest_queue = "a"\nresult_queue = "b"\ndead_letter_queue = "c"\n'
        '[store]\nurl = "sqlite:///s.db"\n' + LOCAL
    )
    assert load_job_spec(jobs, environ=ENVIRON).keys == found


def test_keys_in_kms(tmp_path: Path) -> None:
    table = {"kind": "kms", "key_id": ARN, "older_key_ids": [ARN[:-1] + "c"], "hash_key_env": "HASH", "region": "r"}
    found = encryption_settings(table, tmp_path, ENVIRON)
    assert isinstance(found, KmsKeys)
    assert (found.key_id, found.older_key_ids, found.hash_key) == (ARN, (ARN[:-1] + "c",), key("hash"))


def test_keys_in_a_file(tmp_path: Path) -> None:
    """Beside the spec."""
    (tmp_path / "keyring.json").write_text(ENVIRON["KEYRING"])
    found = encryption_settings({"kind": "local", "keyring_file": "keyring.json"}, tmp_path, {})
    assert found == local_keys("a", "b")
    assert encryption_settings({}, tmp_path, {}) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"tenant": "t"}, "missing key 'kind'"),
        ({"kind": "vault"}, "kind must be 'local' or 'kms', got 'vault'"),
        ({"kind": "local", "keyring_env": "KEYRING", "key_id": ARN}, "'key_id' is for the other kind"),
        ({"kind": "kms", "key_id": ARN, "keyring_env": "KEYRING"}, "'keyring_env' is for the other kind"),
        ({"kind": "kms", "hash_key_env": "HASH"}, "missing key 'key_id'"),
        ({"kind": "kms", "key_id": ARN}, "either a hash key or a wrapped hash key must be set, got 'neither'"),
        ({"kind": "kms", "key_id": ARN, "wrapped_hash_key": "ä"}, "wrapped_hash_key must be base64url"),
        ({"kind": "kms", "key_id": "alias/a", "hash_key_env": "HASH"}, "not an alias"),
        ({"kind": "local", "keyring_env": "ABSENT"}, "environment variable 'ABSENT', which is not set"),
        ({"kind": "local", "keyring_file": "absent"}, "'keyring_file' cannot be read"),
        ({"kind": "local", "keyring_env": "HASH"}, "a keyring must be a JSON object"),
        ({"kind": "local", "keyring_env": "KEYRING", "data_key_messages": 1}, "max_messages must be"),
    ],
)
def test_tables_that_cannot_be_right(table: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        encryption_settings(table, tmp_path, ENVIRON)
    assert "[encryption]" in str(caught.value)
    assert ENVIRON["HASH"] not in str(caught.value)


def test_the_documented_tables_are_right(tmp_path: Path) -> None:
    """As they stand in docs/encryption.md, once the place of the wrapped hash key is filled in."""
    text = (REPOSITORY / "docs/encryption.md").read_text()
    tables = [tomllib.loads(block)["encryption"] for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    local, kms = tables
    assert encryption_settings(local, tmp_path, {"AI_KEYRING": ENVIRON["KEYRING"]}) == local_keys(
        "a", "b", tenant="clinic-a"
    )
    found = encryption_settings({**kms, "wrapped_hash_key": text_of(b"wrapped")}, tmp_path, {})
    assert isinstance(found, KmsKeys)
    assert found.key_id == ARN
