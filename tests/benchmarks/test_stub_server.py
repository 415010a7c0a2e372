"""The stub model server has to be right before anything counted at it can be believed."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stub import ROOT, StubServer, label_of, score_of
from benchmarks.stub_counters import CALLED, Tally
from benchmarks.stub_faults import FaultPlan, FaultState
from tests.support.processes import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer(latency_ms=0) as running:
        yield running


@pytest.fixture
def stub(server: StubServer) -> StubServer:
    server.set_faults(latency_ms=0, jitter_ms=0, ready=True, seed=1)
    wait_until(lambda: server.progress()["in_flight"] == 0, deadline_seconds=5, what="nothing in flight")
    server.reset()
    return server


def exchange(stub: StubServer, path: str, document: Any, *, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    """One request: status, headers, body."""
    connection = HTTPConnection("127.0.0.1", stub.port, timeout=5)
    try:
        connection.request(method, path, json.dumps(document))
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def predict(stub: StubServer, *ids: int | str) -> tuple[int, dict[str, str], bytes]:
    """One call of protocol `json`."""
    return exchange(stub, "/predict", {"model": "m", "inputs": [{"id": key, "a": 1.0} for key in ids]})


def outputs(answer: tuple[int, dict[str, str], bytes]) -> list[dict[str, Any]]:
    return list(json.loads(answer[2])["outputs"])


def open_socket(stub: StubServer, *ids: int) -> socket.socket:
    """A connection with one request sent and no answer read."""
    body = json.dumps({"model": "m", "inputs": [{"id": key} for key in ids]})
    connection = socket.create_connection(("127.0.0.1", stub.port), timeout=5)
    connection.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


class TestProtocols:
    def test_json_answers_by_id(self, stub: StubServer) -> None:
        expected = [{"id": key, "score": score_of(key), "label": label_of(key)} for key in (7, 8, "v-9")]
        assert outputs(predict(stub, 7, 8, "v-9")) == expected

    @pytest.mark.parametrize(
        "inputs",
        [
            pytest.param([{"name": "a", "shape": [2], "datatype": "FP64", "data": [7.3, 8.2]}], id="columns"),
            pytest.param(
                [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [7.3, 1, 8.2, 1]}], id="flat-matrix"
            ),
            pytest.param(
                [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [[7.3, 1], [8.2, 1]]}], id="nested"
            ),
            pytest.param(
                [
                    {"name": "a", "shape": [2], "datatype": "FP64", "data": [0.1, 0.2]},
                    {"name": "id", "shape": [2], "datatype": "INT64", "data": [7, 8]},
                ],
                id="with-ids",
            ),
        ],
    )
    def test_open_inference_is_columnar(self, stub: StubServer, inputs: list[dict[str, Any]]) -> None:
        status, _, body = exchange(stub, "/v2/models/risk/infer", {"id": "r1", "inputs": inputs})
        answer = json.loads(body)
        assert (status, answer["model_name"], answer["id"]) == (200, "risk", "r1")
        assert {tensor["name"]: tensor["data"] for tensor in answer["outputs"]} == {
            "score": [score_of(7), score_of(8)],
            "label": [label_of(7), label_of(8)],
        }

    def test_chat_answers_with_a_json_object_and_usage(self, stub: StubServer) -> None:
        request = {"model": "m", "messages": [{"role": "user", "content": "Rate this note, id=7: cough"}]}
        answer = json.loads(exchange(stub, "/v1/chat/completions", request)[2])
        content = json.loads(answer["choices"][0]["message"]["content"])
        assert content == {"score": score_of(7), "label": label_of(7)}
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 2
        assert stub.counts() == {"7": 1}

    def test_embeddings_come_in_order(self, stub: StubServer) -> None:
        answer = json.loads(exchange(stub, "/v1/embeddings", {"model": "m", "input": ["id=7 x", "id=8 y"]})[2])
        assert [item["index"] for item in answer["data"]] == [0, 1]
        assert [item["embedding"][0] for item in answer["data"]] == [score_of(7), score_of(8)]
        assert answer["usage"]["total_tokens"] > 0

    @pytest.mark.parametrize(
        "path", ["/healthz", "/v1/models", "/v2/health/ready", "/v2/health/live", "/v2/models/m/ready"]
    )
    def test_health_is_not_counted(self, stub: StubServer, path: str) -> None:
        assert exchange(stub, path, None, method="GET")[0] == 200
        assert stub.stats()["requests"] == 0

    def test_it_can_be_alive_and_not_ready(self, stub: StubServer) -> None:
        stub.set_faults(ready=False)
        assert exchange(stub, "/v2/models/m/ready", None, method="GET")[0] == 503
        assert exchange(stub, "/healthz", None, method="GET")[0] == 200

    def test_a_body_of_another_protocol_is_a_client_error(self, stub: StubServer) -> None:
        assert exchange(stub, "/predict", {"rows": []})[0] == 400
        assert stub.stats()["statuses"] == {"400": 1}

    def test_pipelined_requests_are_answered_in_order(self, stub: StubServer) -> None:
        stub.set_faults(latency_ms=5)
        body = [json.dumps({"model": "m", "inputs": [{"id": key}]}) for key in (1, 2)]
        with socket.create_connection(("127.0.0.1", stub.port), timeout=5) as connection:
            parts = [f"POST /predict HTTP/1.1\r\ncontent-length:{len(part)}\r\n\r\n{part}" for part in body]
            connection.sendall("".join(parts).encode()[:-3])
            connection.sendall("".join(parts).encode()[-3:])
            answer = b""
            while answer.count(b'"id"') < 2:
                answer += connection.recv(4096)
        assert answer.index(b'"id":1') < answer.index(b'"id":2')
        assert stub.stats()["peak_in_flight"] == 1


class TestCounters:
    def test_repeats_are_counted_per_id(self, stub: StubServer) -> None:
        for ids in ((1, 2, 3), (3,), (3, 4)):
            predict(stub, *ids)
        stats = stub.stats()
        figures = {name: stats[name] for name in ("requests", "records", "distinct", "repeated", "max_calls")}
        assert figures == {"requests": 3, "records": 6, "distinct": 4, "repeated": 2, "max_calls": 3}
        assert stub.counts(at_least=2) == {"3": 3}
        assert stats["statuses"] == {"200": 3}
        assert stats["answered"]["records"] == stats["paid"]["records"] == 6

    def test_a_rejected_call_is_not_paid_and_a_lost_answer_is_not_answered(self, stub: StubServer) -> None:
        stub.set_faults({"do": "status", "status": 503, "ids": [1]}, {"do": "drop_after", "ids": [2]})
        predict(stub, 1)
        with pytest.raises(RemoteDisconnected):
            predict(stub, 2)
        predict(stub, 3)
        assert stub.counts("called") == {"1": 1, "2": 1, "3": 1}
        assert stub.counts("paid") == {"2": 1, "3": 1}
        assert stub.counts("answered") == {"3": 1}

    def test_reset_forgets_all_of_it(self, stub: StubServer) -> None:
        predict(stub, 1)
        stub.reset()
        stats = stub.stats()
        assert (stats["records"], stats["distinct"], stats["service_ms"]["count"], stub.counts()) == (0, 0, 0, {})

    def test_bitmap_and_dict_agree(self) -> None:
        seed = 20_240
        print(f"seed {seed}")
        chance = random.Random(seed)
        tallies = [Tally(mode=mode, max_id=50) for mode in ("dict", "bitmap")]
        for _ in range(300):
            ids: list[int | str] = [chance.choice([chance.randrange(-5, 60), "x"]) for _ in range(5)]
            for tally in tallies:
                tally.count(CALLED, ids)
        plain, bitmap = tallies
        assert plain.counts(CALLED) == bitmap.counts(CALLED)
        assert plain.summary(CALLED) == bitmap.summary(CALLED)
        assert sum(plain.counts(CALLED).values()) == 1_500

    def test_counts_survive_sigkill_of_the_server(self) -> None:
        with StubServer(latency_ms=0, count_ids="bitmap", max_id=100, keep_counts=True) as stub:
            predict(stub, 1, 2)
            port = stub.port
            stub.kill()
            with pytest.raises(ConnectionRefusedError):
                predict(stub, 2)
            stub.restart()
            predict(stub, 2, 3)
            assert stub.port == port
            assert stub.counts() == {"1": 1, "2": 2, "3": 1}
            assert stub.stats()["requests"] == 2


class TestFaults:
    def test_retry_after_in_seconds(self, stub: StubServer) -> None:
        stub.set_faults({"do": "status", "status": 429, "retry_after": 2})
        status, headers, _ = predict(stub, 1)
        assert (status, headers["retry-after"]) == (429, "2")

    def test_retry_after_as_a_date(self, stub: StubServer) -> None:
        stub.set_faults({"do": "status", "status": 429, "retry_after": 3600, "retry_after_form": "date"})
        until = parsedate_to_datetime(predict(stub, 1)[1]["retry-after"])
        assert 3500 < (until - datetime.now(UTC)).total_seconds() <= 3602

    def test_one_poison_record_fails_the_whole_batch(self, stub: StubServer) -> None:
        stub.set_faults({"do": "status", "status": 422, "modulo": 997, "remainder": 13})
        assert [predict(stub, *ids)[0] for ids in ((1, 2, 1010), (1, 2), (13,))] == [422, 200, 422]

    @pytest.mark.parametrize(
        ("fault", "ids"),
        [
            pytest.param("missing", [1, 3], id="missing"),
            pytest.param("unknown", [1, 1_000_000_000, 3], id="unknown"),
            pytest.param("duplicate", [1, 2, 2, 3], id="duplicate"),
        ],
    )
    def test_wrong_ids_in_the_output(self, stub: StubServer, fault: str, ids: list[int]) -> None:
        stub.set_faults({"do": fault, "ids": [2]})
        assert [output["id"] for output in outputs(predict(stub, 1, 2, 3))] == ids

    def test_wrong_type_in_the_output(self, stub: StubServer) -> None:
        stub.set_faults({"do": "wrong_type", "ids": [2]})
        scores = [output["score"] for output in outputs(predict(stub, 1, 2))]
        assert scores == [score_of(1), "not a number"]

    def test_malformed_json_arrives_complete_as_http(self, stub: StubServer) -> None:
        stub.set_faults({"do": "malformed", "times": 1})
        status, _, body = predict(stub, 1)
        assert status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
        assert outputs(predict(stub, 1))[0]["id"] == 1

    @pytest.mark.parametrize(
        ("fault", "error"),
        [("drop_before", RemoteDisconnected), ("drop_after", RemoteDisconnected), ("drop_half", IncompleteRead)],
    )
    def test_dropped_connections(self, stub: StubServer, fault: str, error: type[Exception]) -> None:
        stub.set_faults({"do": fault, "ids": [1]})
        with pytest.raises(error):
            predict(stub, 1)
        assert predict(stub, 2)[0] == 200
        assert stub.progress()["in_flight"] == 0

    def test_drip_sends_every_byte_in_the_end(self, stub: StubServer) -> None:
        stub.set_faults({"do": "drip", "seconds_per_byte": 0.001})
        assert outputs(predict(stub, 1))[0]["score"] == score_of(1)
        assert stub.stats()["answered"]["records"] == 1

    def test_hang_holds_its_slot_until_the_client_leaves(self, stub: StubServer) -> None:
        stub.set_faults({"do": "hang", "ids": [1]})
        with open_socket(stub, 1):
            wait_until(_in_flight(stub, 1), deadline_seconds=5, what="one hangs")
        wait_until(_in_flight(stub, 0), deadline_seconds=5, what="the slot is free")
        assert (stub.stats()["peak_in_flight"], stub.progress()["paid"]) == (1, 0)

    @pytest.mark.parametrize(
        ("plan", "complaint"),
        [
            ({"rules": [{"do": "explode"}]}, "do must be one of"),
            ({"rules": [{"do": "hang", "id": [1]}]}, "keys must be among"),
            ({"rules": [{"do": "hang", "fraction": 2}]}, "fraction must be between 0 and 1"),
            ({"latency": 3}, "keys must be among"),
            ({"latency_ms": -1}, "latency_ms must be at least 0"),
        ],
    )
    def test_a_bad_plan_is_refused(self, stub: StubServer, plan: dict[str, Any], complaint: str) -> None:
        status, _, body = exchange(stub, "/faults", plan)
        assert status == 400
        assert complaint in json.loads(body)["error"]

    def test_fraction_is_seeded_and_near(self) -> None:
        plan = FaultPlan(seed=42).changed({"rules": [{"do": "malformed", "fraction": 0.2}]})
        drawn = [[state.match([key], 0.0) is not None for key in range(1_000)] for state in _twice(plan)]
        assert drawn[0] == drawn[1]
        assert 150 < sum(drawn[0]) < 250

    def test_a_window_opens_and_closes(self) -> None:
        rule = {"do": "status", "status": 429, "after_seconds": 2, "for_seconds": 10}
        state = FaultState(FaultPlan().changed({"rules": [rule]}), 100.0)
        assert [state.match([1], 100.0 + t) is not None for t in (0, 1.9, 2, 11.9, 12)] == [
            False,
            False,
            True,
            True,
            False,
        ]

    def test_times_per_id_lets_the_retry_of_each_record_through(self) -> None:
        state = FaultState(FaultPlan().changed({"rules": [{"do": "malformed", "times_per_id": 1}]}), 0.0)
        hits = [state.match(ids, 0.0) is not None for ids in ([1], [1], [1, 2], [1, 2], [3])]
        assert hits == [True, False, True, False, True]


def _twice(plan: FaultPlan) -> list[FaultState]:
    return [FaultState(plan, 0.0), FaultState(plan, 0.0)]


class TestLimits:
    @pytest.fixture
    def small(self, request: pytest.FixtureRequest) -> Iterator[StubServer]:
        hang = {"do": "hang", "ids": [1, 2]}
        with StubServer(latency_ms=0, max_in_flight=2, over_limit=request.param, rules=[hang]) as running:
            yield running

    @pytest.mark.parametrize("small", ["reject"], indirect=True)
    def test_above_the_limit_it_answers_429(self, small: StubServer) -> None:
        with open_socket(small, 1), open_socket(small, 2):
            wait_until(_in_flight(small, 2), deadline_seconds=5, what="two hang")
            status, headers, _ = predict(small, 3)
        assert (status, headers["retry-after"]) == (429, "1")
        assert small.stats()["peak_in_flight"] == 2
        assert "3" not in small.counts("paid")

    @pytest.mark.parametrize("small", ["queue"], indirect=True)
    def test_above_the_limit_it_can_queue_instead(self, small: StubServer) -> None:
        with open_socket(small, 1) as first, open_socket(small, 2), ThreadPoolExecutor(1) as pool:
            wait_until(_in_flight(small, 2), deadline_seconds=5, what="two hang")
            third = pool.submit(predict, small, 3)
            wait_until(lambda: small.stats()["queued"] == 1, deadline_seconds=5, what="one is queued")
            assert not third.done()
            first.close()
            assert third.result(timeout=5)[0] == 200
        assert small.stats()["peak_in_flight"] == 2

    def test_no_response_leaves_more_than_a_millisecond_early(self, stub: StubServer) -> None:
        stub.set_faults(latency_ms=20)
        with ThreadPoolExecutor(8) as pool:
            assert {answer[0] for answer in pool.map(lambda key: predict(stub, key), range(200))} == {200}
        times = stub.stats()["service_ms"]
        assert times["count"] == 200
        assert times["least"] >= 19.0


def _in_flight(stub: StubServer, number: int) -> Callable[[], bool]:
    return lambda: stub.progress()["in_flight"] == number


class TestProcess:
    def test_it_ends_with_the_process_that_holds_its_stdin(self) -> None:
        command = [sys.executable, "-m", "benchmarks.stub_server", "--exit-on-stdin-eof"]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["port"] > 0
            process.stdin.close()
            assert process.wait(timeout=5) == 0

    def test_a_state_file_of_another_size_is_refused(self, tmp_path: Path) -> None:
        Tally(mode="bitmap", max_id=10, state=tmp_path / "counters")
        with pytest.raises(ValueError, match="another --max-id"):
            Tally(mode="bitmap", max_id=20, state=tmp_path / "counters")
