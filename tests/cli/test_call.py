"""``airflow-ai call``: a spec and inputs in, the answer as the last line of stdout, an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from airflow_provider_ai.cli import main
from airflow_provider_ai.cli.call_spec import load_call_spec
from airflow_provider_ai.core.fallback import Callable, Endpoint, LastGood, Static
from airflow_provider_ai.exceptions import SpecError
from tests.runtime.endpoints import ModelServer, model_server

CANARY = "CANARY-4711"
STATIC = {"kind": "static", "value": {"priority": "routine"}}


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


def write_spec(folder: Path, url: str = "http://127.0.0.1:9", **tables: Any) -> Path:
    document = {"endpoint": {"url": url, "protocol": "json", "model": "m"}, "fallback": [STATIC], **tables}
    path = folder / "call.toml"
    path.write_text(tomli_w.dumps({name: table for name, table in document.items() if table is not None}))
    return path


def write_inputs(folder: Path, inputs: Any = None) -> Path:
    path = folder / "inputs.json"
    path.write_text(json.dumps([{"id": 7, "age": 63}] if inputs is None else inputs))
    return path


def run(spec: Path, inputs: Path, *options: str) -> int:
    return main(["call", str(spec), "--input", str(inputs), *options])


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return answer


def test_the_answer_is_the_last_line_of_stdout(
    model: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For protocol json the file is the body's inputs, and the output is its outputs."""
    spec = write_spec(tmp_path, model.url, store={"url": "sqlite:///store.db"})
    assert run(spec, write_inputs(tmp_path)) == 0
    answer = last_line(capsys)
    assert answer["output"] == [{"id": 7, "priority": "urgent"}]
    assert (answer["degraded"], answer["source"], answer["breaker_state"]) == (False, "primary", "closed")
    assert set(answer) == {
        "output", "degraded", "reason", "detail", "source", "age_seconds", "attempts", "elapsed_ms", "breaker_state",
        "model",
    }  # fmt: skip
    assert (tmp_path / "store.db").is_file()


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--fail-on-degraded",), 4)])
def test_a_degraded_answer_is_an_answer_unless_it_is_not_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: int
) -> None:
    """Exit 0, or 4 on demand; the answer is printed in both cases and the payload in none."""
    assert run(write_spec(tmp_path), write_inputs(tmp_path, {"note": CANARY}), *options) == code
    shown = capsys.readouterr()
    answer = json.loads(shown.out.splitlines()[-1])
    assert (answer["output"], answer["reason"], answer["source"]) == ({"priority": "routine"}, "connect", "static")
    assert "degraded answer (static)" in shown.err
    assert CANARY not in shown.out + shown.err


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [("text", "not_records"), ([], "empty_inputs"), ([1], "not_records"), ([{"id": 1}, {"id": 1}], "duplicate_id")],
)
def test_inputs_of_the_wrong_type_are_a_degraded_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inputs: Any, reason: str
) -> None:
    """They end as every other failure of a call does."""
    assert run(write_spec(tmp_path), write_inputs(tmp_path, inputs)) == 0
    assert last_line(capsys)["reason"] == reason


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"{", "must be a JSON document"), (b"\xff\xfe", "must be a JSON document")],
)
def test_an_input_file_that_is_none_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    """Exit 2, and nothing on stdout."""
    path = tmp_path / "inputs.json"
    if content is not None:
        path.write_bytes(content)
    assert run(write_spec(tmp_path), path) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"fallback": None}, r"missing \[\[fallback\]\]"),
        ({"fallback": STATIC}, r"fallback must be an array of tables"),
        ({"fallback": [{"kind": "last-good", "max_age_seconds": 5}]}, r"must end in Static"),
        ({"fallback": [{"value": 1}]}, r"fallback number 1\] missing key 'kind'"),
        ({"fallback": [{"kind": "statik", "value": 1}]}, r"unknown kind 'statik'; did you mean 'static'"),
        ({"fallback": [{"kind": "static"}]}, r"missing key 'value'"),
        ({"fallback": [{"kind": "static", "valeu": 1}]}, r"unknown key 'valeu'.*did you mean 'value'"),
        ({"fallback": [{"kind": "endpoint"}, STATIC]}, r"missing key 'url'"),
        ({"fallback": [{"kind": "endpoint", "url": "ftp://x"}, STATIC]}, r"url must start with"),
        ({"fallback": [{"kind": "callable", "path": "x y"}, STATIC]}, r"import string"),
        ({"call": {"deadline_seconds": 6}}, r"\[call\] deadline must be at most 5 s"),
        ({"call": {"deadline": 3}}, r"unknown key 'deadline' in \[call\]; did you mean 'deadline_seconds'"),
        ({"call": {"deadline_seconds": "3"}}, r"'deadline_seconds' in \[call\] must be a number, got a string"),
        ({"breaker": {"minimum_calls": 0}}, r"\[breaker\] minimum_calls must be"),
        ({"store": {"uri": "x"}}, r"unknown key 'uri' in \[store\]; did you mean 'url'"),
        ({"storage": {}}, r"unknown table \[storage\]; did you mean \[store\]"),
        ({"endpoint": {"url": "http://h", "protocol": "json"}}, r"missing key 'model' in \[endpoint\]"),
        ({"endpoint": {"url": "http://h", "protocol": "soap", "model": "m"}}, r"protocol must be one of"),
        (
            {"endpoint": {"url": "http://h", "protocol": "openai-chat", "model": "m"}},
            r"missing key 'prompt' in \[endpoint\]",
        ),
        (
            {"endpoint": {"url": "http://h", "protocol": "json", "model": "m", "api_key_env": "NO_SUCH_KEY"}},
            r"environment variable 'NO_SUCH_KEY', which is not set",
        ),
        ({"store": None, "fallback": [{"kind": "last-good", "max_age_seconds": 5}, STATIC]}, "LastGood needs a store"),
    ],
)
def test_a_spec_that_cannot_be_right_ends_with_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tables: dict[str, Any], message: str
) -> None:
    """Before anything is sent, naming the table, the key and the nearest known one."""
    assert run(write_spec(tmp_path, **tables), write_inputs(tmp_path)) == 2
    error = capsys.readouterr().err
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)


def test_a_whole_spec_is_read(tmp_path: Path) -> None:
    """Every link; a fallback endpoint inherits what it does not say, but no key and no headers."""
    spec = load_call_spec(
        write_spec(
            tmp_path,
            endpoint={
                "url": "https://models.example",
                "protocol": "json",
                "model": "large",
                "path": "/triage",
                "api_key_env": "KEY",
                "headers": {"X-Tenant": "a"},
            },
            call={"deadline_seconds": 4, "max_attempts": 2},
            breaker={"open_seconds": 9.0},
            store={"url": "sqlite:///store.db"},
            fallback=[
                {"kind": "last-good", "max_age_seconds": 3600},
                {"kind": "endpoint", "url": "http://127.0.0.1:8081", "model": "small", "reserve_seconds": 1},
                {"kind": "endpoint", "url": "http://h", "protocol": "openai-chat", "prompt": "{{ record.note }}"},
                {"kind": "callable", "path": "rules:by_age"},
                STATIC,
            ],
        ),
        environ={"KEY": "secret"},
    )
    last_good, small, chat, function, floor = spec.fallback
    assert spec.endpoint.api_key == "secret"
    assert (spec.settings.deadline_seconds, spec.settings.max_attempts, spec.settings.breaker.open_seconds) == (4, 2, 9)
    assert spec.store == f"sqlite:///{tmp_path}/store.db"
    assert isinstance(last_good, LastGood)
    assert last_good.max_age_seconds == 3600
    assert isinstance(small, Endpoint)
    assert not isinstance(small.target, str)
    assert (small.target.model, small.target.path, small.target.api_key, dict(small.target.headers)) == (
        "small", "/triage", None, {},
    )  # fmt: skip
    assert small.reserve_seconds == 1
    assert isinstance(chat, Endpoint)
    assert chat.request is not None
    assert chat.request.protocol == "openai-chat"
    assert function == Callable("rules:by_age")
    assert floor == Static({"priority": "routine"})


def test_a_missing_spec_is_an_error() -> None:
    """By name."""
    with pytest.raises(SpecError, match=r"nowhere\.toml: there is no such file"):
        load_call_spec("nowhere.toml")


def test_the_command_imports_no_airflow_and_reads_stdin(model: ModelServer, tmp_path: Path) -> None:
    """As a user starts it, with airflow out of reach."""
    code = (
        "import sys; sys.modules['airflow'] = None\n"
        "from airflow_provider_ai.cli import program; sys.argv[0] = 'airflow-ai'; program()"
    )
    spec = write_spec(tmp_path, model.url)
    done = subprocess.run(
        [sys.executable, "-c", code, "call", str(spec), "--input", "-"],
        input='{"age": 63}',
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1])["output"] == {"priority": "urgent"}
    assert done.stderr == ""


def test_a_callable_may_lie_beside_its_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is a script elsewhere, so Python would not look there by itself."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "rules_beside_the_spec.py").write_text("def by_age(inputs):\n    return {'age': inputs['age'] + 1}\n")
    spec = write_spec(tmp_path, fallback=[{"kind": "callable", "path": "rules_beside_the_spec:by_age"}, STATIC])
    assert run(spec, write_inputs(tmp_path, {"age": 63})) == 0
    answer = last_line(capsys)
    assert (answer["output"], answer["source"]) == ({"age": 64}, "callable")
