"""What a run from the command line loads: pandas costs 40 MB and, in the middle of the calls, half a second."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import product
from benchmarks.stub import StubServer


@pytest.mark.parametrize("sink_url", ["duckdb:///warehouse.duckdb", "sqlite:///warehouse.sqlite"])
def test_a_run_imports_no_pandas(tmp_path: Path, sink_url: str) -> None:
    """From the first file read to the last row published."""
    data = product.make_data(tmp_path / "visits", 200)
    with StubServer(latency_ms=0, max_in_flight=64) as stub:
        job = replace(product.Job(folder=tmp_path / "job", data=data, url=stub.url), sink_url=sink_url)
        program = f"""
import sys
from airflow_provider_ai.cli import main
code = main(["batch", "run", {str(job.write_spec())!r}])
print("pandas" in sys.modules, file=sys.stderr)
sys.exit(code)
"""
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["published"] == 200
    assert done.stderr.splitlines()[-1] == "False"
