"""A process that calls over gRPC: what it imports, what it needs, and that it may end while something hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.endpoints.processes import EXIT_SECONDS, run_to_its_end
from tests.support.scripted_server import Wire, serve

HANGS = """
import asyncio, sys, time
from airflow_provider_ai.adapters.endpoints import open_inference_grpc
from airflow_provider_ai.adapters.endpoints.opening import open_endpoint
from airflow_provider_ai.adapters.endpoints.readiness import check_ready
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError

settings = EndpointSettings(url=sys.argv[1], protocol="open-inference-grpc", model="m")
body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}'

async def call():
    async with open_endpoint(settings, max_response_bytes=1000) as endpoint:
        await endpoint.post("/v2/models/m/infer", body, deadline_seconds=0.3)

started = time.monotonic()
try:
    asyncio.run(call())
except CallFailedError as failed:
    print(failed.failure.value, check_ready(settings, timeout_seconds=0.3).ready, time.monotonic() - started < 3.0)
print(time.monotonic(), flush=True)
"""

ABANDONS = """
import asyncio, sys, threading, time
from airflow_provider_ai.adapters.endpoints.opening import open_endpoint
from airflow_provider_ai.core.config import EndpointSettings

settings = EndpointSettings(url=sys.argv[1], protocol="open-inference-grpc", model="m")
body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}'

async def call():
    async with open_endpoint(settings, max_response_bytes=1000) as endpoint:
        await endpoint.post("/v2/models/m/infer", body, deadline_seconds=60.0)

worker = threading.Thread(target=lambda: asyncio.run(call()), daemon=True)
worker.start()
worker.join(0.3)
print("left behind", worker.is_alive())
print(time.monotonic(), flush=True)
"""


async def mute(wire: Wire) -> None:
    await wire.until_closed()


@pytest.mark.parametrize(("program", "said"), [(HANGS, "timeout False True"), (ABANDONS, "left behind True")])
async def test_a_process_ends_while_a_server_hangs(program: str, said: str) -> None:
    """It is gone soon after the end of its own work, also with a call left behind in a thread."""
    async with serve(mute) as server:
        url = f"grpc://127.0.0.1:{server.port}"
        found, seconds = await asyncio.to_thread(run_to_its_end, sys.executable, "-c", program, url)
    assert found == said
    assert seconds < EXIT_SECONDS


SILENT_NAME_SERVER = """
set -e
ip link set lo up
echo 'nameserver 127.0.0.1' > "$1/resolv.conf"
mount --bind "$1/resolv.conf" /etc/resolv.conf
exec "$2" -c "import socket; names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); names.bind(('127.0.0.1', 53))
$3" grpc://model.example:8001
"""


def test_a_process_ends_while_a_name_server_hangs(tmp_path: Path) -> None:
    """gRPC looks names up itself: within the deadline, and not in the way of the end of the process."""
    namespaces = ["unshare", "--mount", "--net", "bash", "-c"]
    if subprocess.run([*namespaces, "mount --bind /etc /etc"], check=False, capture_output=True).returncode:
        pytest.skip("a name server that hangs needs network and mount namespaces, which are not allowed here")
    found, seconds = run_to_its_end(*namespaces, SILENT_NAME_SERVER, "bash", str(tmp_path), sys.executable, HANGS)
    assert found == "timeout False True"
    assert seconds < EXIT_SECONDS


NO_EXTRA = """
import sys
sys.modules[{missing!r}] = None
from airflow_provider_ai.adapters.endpoints.opening import open_endpoint
from airflow_provider_ai.adapters.endpoints.readiness import check_ready
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.exceptions import SpecError

settings = EndpointSettings(url="grpc://127.0.0.1:1", protocol="open-inference-grpc", model="m")
for ask in (lambda: open_endpoint(settings, max_response_bytes=1), lambda: check_ready(settings)):
    try:
        ask()
    except SpecError as error:
        print(error)
"""


@pytest.mark.parametrize("missing", ["grpc", "google.protobuf"])
def test_without_the_extra(missing: str) -> None:
    """What to install is said; nothing else of the package needs gRPC."""
    code = NO_EXTRA.format(missing=missing)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("pip install 'airflow-provider-ai[grpc]'") == 2


def test_what_is_imported() -> None:
    """The endpoint over HTTP needs no gRPC and the one over gRPC no aiohttp: each costs a part of a start."""
    code = "import sys; from airflow_provider_ai.adapters.endpoints import {}; print(*sys.modules)"
    for module, absent in (("http", "grpc"), ("open_inference_grpc", "aiohttp")):
        command = [sys.executable, "-c", code.format(module)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert absent not in done.stdout.split()
