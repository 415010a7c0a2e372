"""What the operator of synchronous calls adds to the start of a task: imports, and what its first execution loads.

    python -m benchmarks.sync_import

Fresh interpreters first import what Airflow's task runner imports anyway, with a DAG of Airflow's own operators. Then
the clock starts: the operator's module, and its first execution against a server that answers at once, less a second
execution, which finds everything loaded. Bytecode is compiled; the store exists. Medians.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import measure
from benchmarks.stub import StubServer

LIMIT_SECONDS = 0.6
RECORD = {"age": 63, "pulse": 118}
AIRFLOWS_OWN = (
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.dagbag",
    "airflow.sdk",
    "airflow.models",
    "airflow.providers.standard.operators.python",
    "airflow.providers.common.compat.sdk",
)
_PROBE = "import sys; from benchmarks import sync_import; sync_import.probe()"


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claim holds."""
    parser = measure.call_options("Import time of the synchronous operator.", calls=9, quick_calls=1)
    options = measure.read_options(parser, arguments)
    with TemporaryDirectory(prefix="airflow-") as home, StubServer(latency_ms=0) as stub:
        environment = _environment(Path(home), stub)
        _probed(environment)  # compiles what is not compiled yet, and makes the store
        rows = [_probed(environment) for _ in range(options.calls)]
        assert stub.stats()["requests"] == 2 * (1 + options.calls), stub.stats()["requests"]
    total = median(row["total_s"] for row in rows)
    claim = measure.Claim(what="import and first execution, median, s", measured=total, limit=LIMIT_SECONDS)
    return measure.report("sync_import", vars(options), rows, [claim])


def _environment(home: Path, stub: StubServer) -> dict[str, str]:
    extra = {"protocol": "json", "model": "m"}
    model = {"conn_type": "ai_endpoint", "schema": "http", "host": "127.0.0.1", "port": stub.port, "extra": extra}
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_MODEL": json.dumps(model),
        "AIRFLOW_CONN_AI_STORE": json.dumps({"conn_type": "sqlite", "host": str(home / "store.db")}),
    }


def _probed(environment: dict[str, str]) -> dict[str, Any]:
    return measure.run([sys.executable, "-c", _PROBE], env=environment).require_success().last_json()


def probe() -> None:
    """In a fresh interpreter: seconds of each step, as a line of JSON."""
    began = time.perf_counter()
    for name in AIRFLOWS_OWN:
        import_module(name)
    airflow = time.perf_counter() - began
    loaded = len(sys.modules)

    began = time.perf_counter()
    from airflow_provider_ai.core.fallback import Static
    from airflow_provider_ai.core.requests import JsonRequest
    from airflow_provider_ai.operators.sync_call import AISyncCallOperator

    imported = time.perf_counter() - began
    operator = AISyncCallOperator(
        task_id="call", endpoint_conn_id="model", request=JsonRequest(inputs=RECORD), fallback=[Static({"a": 1})]
    )
    times = []
    for _ in range(2):
        began = time.perf_counter()
        assert operator.execute({})["source"] == "primary"
        times.append(time.perf_counter() - began)
    first = times[0] - times[1]
    steps = {"airflow_s": airflow, "import_s": imported, "first_execution_s": first, "total_s": imported + first}
    print(json.dumps(steps | {"modules": len(sys.modules) - loaded}))


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
