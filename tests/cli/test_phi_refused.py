"""With [phi] enabled and nothing that encrypts or audits no command does anything: exit code 2, every reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ai.cli import main
from airflow_provider_ai.core.phi_policy import ENVIRONMENT_VARIABLE
from tests.cli.specs import MINIMAL
from tests.cli.test_job_spec import WHOLE
from tests.cli.test_phi_spec import CALL
from tests.support.tls_peer import tls_peer

COMMANDS = {
    "batch run": (MINIMAL, ["batch", "run", "{spec}"]),
    "batch status": (MINIMAL, ["batch", "status", "{spec}"]),
    "call": (CALL, ["call", "{spec}", "--input", "{input}"]),
    "worker": (WHOLE, ["worker", "{spec}"]),
    "dispatcher": (WHOLE, ["dispatcher", "{spec}"]),
    "jobs submit": (WHOLE, ["jobs", "submit", "{spec}", "--input", "{input}", "--key", "k"]),
    "jobs wait": (WHOLE, ["jobs", "wait", "{spec}", "--key", "k", "--timeout", "1"]),
    "dlq list": (WHOLE, ["dlq", "list", "{spec}"]),
}


@pytest.mark.parametrize("how", ["spec", "environment"])
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_runs(
    command: str,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody is even connected to."""
    text, arguments = COMMANDS[command]
    (tmp_path / "input.json").write_text('{"name": "canary"}')
    if how == "environment":
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "true")
    with tls_peer(None) as peer:
        url = f"http://127.0.0.1:{peer.port}"
        text = text.replace("http://127.0.0.1:8080", url).replace("http://127.0.0.1:4577", url)
        (tmp_path / "spec.toml").write_text(text + ("[phi]\nenabled = true\n" if how == "spec" else ""))
        places = {"spec": str(tmp_path / "spec.toml"), "input": str(tmp_path / "input.json")}
        code = main([argument.format(**places) for argument in arguments])
    said = capsys.readouterr()
    assert code == 2
    assert "encryption: " in said.err
    assert "audit: " in said.err
    assert "nothing was sent" in said.err
    assert "canary" not in said.err + said.out
    assert peer.connections == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.json", "spec.toml"]
