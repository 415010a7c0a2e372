"""MLServer with a scikit-learn model behind the Open Inference Protocol (V2), over REST and gRPC.

It runs in an environment of its own. Two names serve the same model: `breast-cancer` takes one tensor of shape
[rows, 30] in the order of the columns; `breast-cancer-columns` takes one tensor of shape [rows] per column, by name.
Outputs: `predict` (1 is benign) by default, `predict_proba` on request.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support import processes

MODEL = "breast-cancer"
COLUMNS_MODEL = "breast-cancer-columns"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelServer:
    """A running MLServer. ``url``: REST base; ``grpc_target``: host:port."""

    url: str
    grpc_target: str
    service: processes.Service = field(repr=False)


@contextmanager
def mlserver(*, port: int | None = None) -> Iterator[ModelServer]:
    """Train, serve, wait until both models are ready. A given ``port`` lets a test take the server away and back."""
    python = processes.side_environment("mlserver")
    http_port, grpc_port, metrics_port = port or processes.free_port(), processes.free_port(), processes.free_port()
    url = f"http://127.0.0.1:{http_port}"
    with tempfile.TemporaryDirectory(prefix="mlserver-", ignore_cleanup_errors=True) as root:
        _train(python, Path(root))
        settings = {
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": str(http_port),
            "MLSERVER_GRPC_PORT": str(grpc_port),
            "MLSERVER_METRICS_PORT": str(metrics_port),
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
            "OMP_NUM_THREADS": "1",
        }
        with processes.running(
            "MLServer",
            [python.parent / "mlserver", "start", "models"],
            log_path=Path(root) / "mlserver.log",
            env=processes.child_environment(settings),
            cwd=Path(root),
            ready=partial(_models_ready, url),
            deadline_seconds=120.0,
        ) as service:
            yield ModelServer(url=url, grpc_target=f"127.0.0.1:{grpc_port}", service=service)


def _train(python: Path, root: Path) -> None:
    script = Path(__file__).with_name("train_model.py")
    trained = subprocess.run(
        [str(python), str(script), str(root / "models")],
        env=processes.child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if trained.returncode:
        raise processes.ServiceError(f"the model could not be trained:\n{trained.stderr}")


def _models_ready(url: str) -> bool:
    return all(processes.http_ok(f"{url}/v2/models/{name}/ready") for name in (MODEL, COLUMNS_MODEL))
