"""The batch spec: what it accepts, how paths are meant, and how it says what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.cli.spec import BatchSpec, load_batch_spec
from airflow_provider_ai.cli.spec_keys import BATCH, REQUEST_CLASSES, SETTINGS_OF_TABLE
from airflow_provider_ai.core.config import (
    PROTOCOLS,
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
    StorageOptions,
)
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
)
from airflow_provider_ai.exceptions import SpecError
from tests.cli.specs import DOCUMENTED, MINIMAL, changed, write


def _load(folder: Path, text: str, **environ: str) -> BatchSpec:
    return load_batch_spec(write(folder, text), environ=environ)


def _refusal(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(SpecError) as caught:
        _load(folder, text, **environ)
    message = str(caught.value)
    assert message.startswith(f"{folder}/nightly.toml: ")
    return message.removeprefix(f"{folder}/nightly.toml: ")


def test_the_documented_spec_is_accepted_word_for_word(tmp_path: Path) -> None:
    spec = _load(tmp_path, DOCUMENTED, MODEL_KEY="s3cret")
    assert spec == BatchSpec(
        path=tmp_path / "nightly.toml",
        input=InputSettings(
            uri=f"{tmp_path}/visits/*.parquet", id_column="visit_id", columns=("a", "b"), rows_per_partition=100_000
        ),
        endpoint=EndpointSettings(
            url="http://127.0.0.1:8080", protocol="json", model="m", path="/predict", api_key="s3cret"
        ),
        request=JsonRequest(columns=("a", "b"), records_per_request=1, path="/predict"),
        limits=Limits(concurrency=64, request_deadline_seconds=30, max_attempts=5, max_quarantined_fraction=0.01),
        checkpoint=CheckpointSettings(uri=f"{tmp_path}/checkpoints/", interval_seconds=1.0),
        sink=SinkSettings(url=f"duckdb:///{tmp_path}/warehouse.duckdb", table="predictions"),
        unused=("prompt",),
    )


@pytest.mark.parametrize("protocol", ["open-inference", "openai-chat", "openai-embeddings"])
def test_the_documented_spec_is_accepted_with_each_protocol(tmp_path: Path, protocol: str) -> None:
    text = DOCUMENTED.replace('protocol = "json"', f'protocol = "{protocol}"')
    spec = _load(tmp_path, text, MODEL_KEY="x")
    assert type(spec.request) is REQUEST_CLASSES[protocol]
    assert spec.request.path == "/predict"
    assert spec.input.columns == (("note",) if protocol.startswith("openai") else ("a", "b"))


def test_a_spec_over_grpc(tmp_path: Path) -> None:
    """The same keys as over REST, with another URL; the path is a setting of HTTP."""
    grpc = ('protocol = "open-inference-grpc"', 'url = "grpc://127.0.0.1:8081"', 'model = "m"', "p99_seconds = 0.5")
    text = MINIMAL.replace('protocol = "json"\n', "").replace('url = "http://127.0.0.1:8080"\nmodel = "m"\n', "")
    text = changed('columns = ["a", "b"]', table="input", text=text)
    spec = _load(tmp_path, changed(*grpc, 'layout = "columns"', text=text))
    assert spec.request == OpenInferenceRequest(columns=["a", "b"], layout="columns")
    assert (spec.endpoint.url, spec.endpoint.p99_seconds) == ("grpc://127.0.0.1:8081", 0.5)
    assert spec.endpoint.over_grpc
    assert "must name no path over gRPC" in _refusal(tmp_path, changed(*grpc, 'path = "/predict"', text=text))
    assert "must start with grpc:// or grpcs://" in _refusal(
        tmp_path, changed(*(line.replace("grpc:", "http:") for line in grpc), text=text)
    )


def test_a_minimal_spec_takes_the_defaults(tmp_path: Path) -> None:
    spec = _load(tmp_path, MINIMAL)
    assert (spec.limits, spec.request, spec.storage) == (Limits(), JsonRequest(), None)
    assert spec.input.columns is None


def test_every_setting_can_be_set() -> None:
    """A field that is added to the settings must be reachable from a spec; secrets and synchronous inputs excepted."""
    hidden = {"api_key", "access_key", "secret_key", "session_token"}
    for table, settings in SETTINGS_OF_TABLE.items():
        assert {field.name for field in dataclasses.fields(settings)} - hidden <= BATCH.known[table].keys()
    elsewhere = {"columns", "records_per_request", "inputs"}
    for request in REQUEST_CLASSES.values():
        names = {field.name for field in dataclasses.fields(request) if field.init}
        assert names - elsewhere <= BATCH.known["endpoint"].keys()
    assert "inputs" not in BATCH.known["endpoint"]


def test_everything_that_can_be_set_arrives(tmp_path: Path) -> None:
    spec = _load(
        tmp_path,
        """
        [input]
        uri = "s3://lake/visits/"
        id_column = "visit_id"
        columns = ["a"]
        format = "csv"
        rows_per_partition = 10
        max_partitions = 2
        [endpoint]
        url = "https://models.example"
        protocol = "open-inference"
        model = "m"
        path = "/x/{model}"
        verify_tls = false
        ca_file = "ca.pem"
        client_cert_file = "/etc/client.pem"
        client_key_file = "client.key"
        price_per_million_input_tokens = 1
        price_per_million_output_tokens = 2.5
        price_per_call = 0.1
        layout = "columns"
        datatype = "FP32"
        output_names = ["p"]
        [endpoint.headers]
        X-Team = "cardio"
        [endpoint.parameters]
        content_type = "pd"
        [limits]
        concurrency = 1
        requests_per_minute = 60
        tokens_per_minute = 1000.5
        request_deadline_seconds = 1.5
        max_attempts = 2
        max_quarantined_fraction = 1
        backoff_base_seconds = 0.1
        backoff_cap_seconds = 1
        max_outage_seconds = 9
        max_response_bytes = 100
        stop_grace_seconds = 0
        records_per_request = 8
        [checkpoint]
        uri = "s3://lake/checkpoints"
        interval_seconds = 2
        [sink]
        url = "postgresql://db.example/warehouse"
        table = "t"
        schema = "ai"
        [storage]
        endpoint_url = "http://127.0.0.1:4566"
        region = "eu-west-1"
        """,
    )
    assert spec.input == InputSettings(
        uri="s3://lake/visits/",
        id_column="visit_id",
        columns=("a",),
        format="csv",
        rows_per_partition=10,
        max_partitions=2,
    )
    assert spec.endpoint == EndpointSettings(
        url="https://models.example",
        protocol="open-inference",
        model="m",
        path="/x/{model}",
        headers={"X-Team": "cardio"},
        verify_tls=False,
        ca_file=f"{tmp_path}/ca.pem",
        client_cert_file="/etc/client.pem",
        client_key_file=f"{tmp_path}/client.key",
        price_per_million_input_tokens=1,
        price_per_million_output_tokens=2.5,
        price_per_call=0.1,
    )
    assert spec.request == OpenInferenceRequest(
        columns=("a",),
        records_per_request=8,
        layout="columns",
        datatype="FP32",
        output_names=("p",),
        parameters={"content_type": "pd"},
        path="/x/{model}",
    )
    assert spec.limits == Limits(
        concurrency=1,
        requests_per_minute=60,
        tokens_per_minute=1000.5,
        request_deadline_seconds=1.5,
        max_attempts=2,
        max_quarantined_fraction=1,
        backoff_base_seconds=0.1,
        backoff_cap_seconds=1,
        max_outage_seconds=9,
        max_response_bytes=100,
        stop_grace_seconds=0,
    )
    assert spec.checkpoint == CheckpointSettings(uri="s3://lake/checkpoints", interval_seconds=2)
    assert spec.sink == SinkSettings(url="postgresql://db.example/warehouse", table="t", schema="ai")
    assert spec.storage == StorageOptions(endpoint_url="http://127.0.0.1:4566", region="eu-west-1")
    assert spec.unused == ()


# --- requests


def _protocol(name: str, *lines: str) -> str:
    return changed(f'protocol = "{name}"', *lines, without="protocol")


def test_a_chat_spec_takes_prompt_system_schema_and_parameters(tmp_path: Path) -> None:
    lines = (
        'prompt = "Rate {{ record.note }} of {{ record.visit_id }}"',
        'system = "Be brief."',
        'output_schema = {type = "object", properties = {score = {type = "number"}}}',
        "strict = true",
        "parameters = {temperature = 0.0, max_tokens = 10}",
    )
    spec = _load(tmp_path, _protocol("openai-chat", *lines))
    assert spec.request == OpenAIChatRequest(
        prompt="Rate {{ record.note }} of {{ record.visit_id }}",
        system="Be brief.",
        output_schema={"type": "object", "properties": {"score": {"type": "number"}}},
        strict=True,
        parameters={"temperature": 0.0, "max_tokens": 10},
    )
    assert spec.input.columns == ("note",)  # the id is read in any case


def test_an_output_schema_may_be_a_json_file_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"score": {}}}')
    spec = _load(tmp_path, _protocol("openai-chat", 'prompt = "{{ record.x }}"', 'output_schema = "schema.json"'))
    assert spec.request.output_columns == ("score",)


def test_a_prompt_over_the_whole_record_reads_the_columns_listed(tmp_path: Path) -> None:
    text = _protocol("openai-embeddings", 'prompt = "{{ record | tojson }}"', "dimensions = 4", 'output_column = "v"')
    spec = _load(tmp_path, changed('columns = ["a", "visit_id"]', table="input", text=text))
    assert spec.request == OpenAIEmbeddingsRequest(prompt="{{ record | tojson }}", dimensions=4, output_column="v")
    assert spec.input.columns == ("a",)


# --- paths


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("visits/*.parquet", "{folder}/visits/*.parquet"),
        ("visits/", "{folder}/visits/"),
        ("../x.csv", "{folder}/../x.csv"),
        ("/data/x.csv", "/data/x.csv"),
        ("~/x.csv", "{home}/x.csv"),
        ("file:///data/x.csv", "file:///data/x.csv"),
        ("s3://lake/x/", "s3://lake/x/"),
    ],
)
def test_paths_are_relative_to_the_folder_of_the_spec(tmp_path: Path, uri: str, expected: str) -> None:
    text = changed(f'uri = "{uri}"', table="input", without="uri")
    text = changed(f'uri = "{uri}"', table="checkpoint", without="uri", text=text)
    spec = _load(tmp_path, text)
    expected = expected.format(folder=tmp_path, home=Path.home())
    assert (spec.input.uri, spec.checkpoint.uri) == (expected, expected)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("duckdb:///warehouse.duckdb", "duckdb:///{folder}/warehouse.duckdb"),
        ("sqlite:///data/x.db?timeout=5", "sqlite:///{folder}/data/x.db?timeout=5"),
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite:///{folder}/x.db"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file:x.db?uri=true", "sqlite:///file:x.db?uri=true"),
        ("duckdb:///md:team", "duckdb:///md:team"),
        ("duckdb://", "duckdb://"),
        ("postgresql://u@host/db", "postgresql://u@host/db"),
    ],
)
def test_file_databases_are_relative_to_the_folder_of_the_spec(tmp_path: Path, url: str, expected: str) -> None:
    spec = _load(tmp_path, changed(f'url = "{url}"', table="sink", without="url"))
    assert spec.sink.url == expected.format(folder=tmp_path)


def test_a_spec_reached_by_a_relative_path_or_a_link_means_the_folder_it_was_named_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release-7"
    release.mkdir()
    write(release)
    (tmp_path / "current").symlink_to(release)
    monkeypatch.chdir(tmp_path)
    spec = load_batch_spec("current/nightly.toml", environ={})
    assert spec.input.uri == f"{tmp_path}/current/visits.parquet"


# --- the API key


def test_the_api_key_comes_from_the_variable_that_is_named(tmp_path: Path) -> None:
    text = changed('api_key_env = "KEY"')
    assert _load(tmp_path, text, KEY="s3cret").endpoint.api_key == "s3cret"
    assert "s3cret" not in repr(_load(tmp_path, text, KEY="s3cret"))
    for environ in ({}, {"KEY": ""}):
        expected = "'api_key_env' in [endpoint] names the environment variable 'KEY', which is not set"
        assert _refusal(tmp_path, text, **environ) == expected


def test_a_spec_can_be_read_without_its_api_key_where_no_model_is_called(tmp_path: Path) -> None:
    path = write(tmp_path, changed('api_key_env = "KEY"'))
    assert load_batch_spec(path, environ={}, need_api_key=False).endpoint.api_key is None


# --- refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # unknown names
        (
            changed("concurency = 1", table="limits"),
            "unknown key 'concurency' in [limits]; did you mean 'concurrency'?",
        ),
        (changed("api_key = 'x'"), "unknown key 'api_key' in [endpoint]; did you mean 'api_key_env'?"),
        (
            changed("concurrency = 1"),
            "unknown key 'concurrency' in [endpoint]; did you mean 'concurrency' in [limits]?",
        ),
        (changed("inputs = {x = 1}"), "unknown key 'inputs' in [endpoint]; did you mean 'input_name'?"),
        (changed("x = 1", table="limit"), "unknown table [limit]; did you mean [limits]?"),
        (
            "prompts = 'x'\n" + MINIMAL,
            "unknown key 'prompts' outside of the tables; did you mean 'prompt' in [endpoint]?",
        ),
        (
            changed("secret_key = 'x'", table="storage"),
            "'secret_key' must not be in [storage]: credentials come from the environment (AWS_ACCESS_KEY_ID, …)",
        ),
        # missing names
        (changed(without="url"), "missing key 'url' in [endpoint]"),
        (changed(without="model"), "missing key 'model' in [endpoint]"),
        (changed(without="protocol"), "missing key 'protocol' in [endpoint]"),
        (changed(table="input", without="id_column"), "missing key 'id_column' in [input]"),
        (changed(table="checkpoint", without="uri"), "missing key 'uri' in [checkpoint]"),
        (changed(table="sink", without="table"), "missing key 'table' in [sink]"),
        ("", "missing key 'uri' in [input]"),
        (_protocol("openai-chat"), "missing key 'prompt' in [endpoint]: protocol 'openai-chat' sends one"),
        (_protocol("openai-embeddings"), "missing key 'prompt' in [endpoint]: protocol 'openai-embeddings' sends one"),
        (
            _protocol("open-inference"),
            "missing key 'columns' in [input]: protocol 'open-inference' sends them in the order given",
        ),
        # wrong types
        (changed("concurrency = '64'", table="limits"), "'concurrency' in [limits] must be an integer, got a string"),
        (changed("concurrency = 64.0", table="limits"), "'concurrency' in [limits] must be an integer, got a float"),
        (
            changed("max_attempts = true", table="limits"),
            "'max_attempts' in [limits] must be an integer, got a boolean",
        ),
        (changed("price_per_call = true"), "'price_per_call' in [endpoint] must be a number, got a boolean"),
        (changed("verify_tls = 0"), "'verify_tls' in [endpoint] must be true or false, got an integer"),
        (changed("columns = 'a'", table="input"), "'columns' in [input] must be a list of strings, got a string"),
        (
            changed("columns = [1]", table="input"),
            "'columns' in [input] must be a list of strings, got a list of something else",
        ),
        (changed("headers = {A = 1}"), "'headers' in [endpoint] must be a table of strings, got a table"),
        (changed("parameters = []"), "'parameters' in [endpoint] must be a table, got a list of something else"),
        (
            changed("output_schema = 1"),
            "'output_schema' in [endpoint] must be a table or the path of a JSON file, got an integer",
        ),
        (
            changed("uri = 2026-01-02", table="input", without="uri"),
            "'uri' in [input] must be a string, got a date or time",
        ),
        ("limits = 3\n" + MINIMAL, "[limits] must be a table, got an integer"),
        # values out of range: each settings class says so itself, the table is added
        (changed("concurrency = 0", table="limits"), "[limits] concurrency must be an integer ≥ 1, got 0"),
        (
            changed("records_per_request = 0", table="limits"),
            "[limits] records_per_request must be an integer ≥ 1, got 0",
        ),
        (
            changed("interval_seconds = 0", table="checkpoint"),
            "[checkpoint] checkpoint interval_seconds must be a number > 0, got 0",
        ),
        (changed("columns = ['a', 'a']", table="input"), "[input] columns must name each column once, got ['a']"),
        (changed('path = "predict"'), "[endpoint] path must start with '/', got 'predict'"),
        (
            _protocol("grpc"),
            f"[endpoint] protocol must be one of {PROTOCOLS}, got 'grpc'",
        ),
        (
            changed(
                "records_per_request = 8", table="limits", text=_protocol("openai-chat", "prompt = '{{ record.x }}'")
            ),
            "[limits] records_per_request must be 1: a completion answers one record, got 8",
        ),
        (
            _protocol("openai-chat", "prompt = '{{ % }}'"),
            "[endpoint] prompt must be a valid Jinja2 template, got line 1: unexpected '%'",
        ),
        # collisions that would cost every call before they showed
        (
            _protocol("openai-chat", "prompt = '{{ record.x }}'", "output_column = 'visit_id'"),
            "[endpoint] the output column 'visit_id' has the name of the id column",
        ),
        (
            changed("columns = ['id']", table="input"),
            "[input] columns must not hold 'id': protocol 'json' sends the id column under that name",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_table_and_key(tmp_path: Path, text: str, message: str) -> None:
    assert _refusal(tmp_path, text) == message


def test_files_that_are_no_spec_are_named(tmp_path: Path) -> None:
    assert "must be valid TOML: " in _refusal(tmp_path, "[input\n")
    (tmp_path / "nightly.toml").write_bytes(b"\xff")
    for path, message in (
        (tmp_path / "nightly.toml", "must be UTF-8 text"),
        (tmp_path / "none.toml", "there is no such file"),
        (tmp_path, r"cannot be read \(Is a directory\)"),
    ):
        with pytest.raises(SpecError, match=message):
            load_batch_spec(path, environ={})


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), ("{", "must be a JSON file"), ("[]", "got \\[\\]")]
)
def test_a_schema_file_that_cannot_be_used_is_named(tmp_path: Path, content: Any, message: str) -> None:
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with pytest.raises(SpecError, match=message):
        _load(tmp_path, changed("output_schema = 's.json'"))


def test_no_message_shows_a_value_that_may_be_secret(tmp_path: Path) -> None:
    for text in (
        changed("headers = {Authorization = 7, X = 'hunter2'}"),
        changed("url = 'hunter2'", table="sink", without="url"),
        changed("url = 'http://u:hunter2@h'", without="url"),
    ):
        assert "hunter2" not in _refusal(tmp_path, text)
