"""What encryption costs: each message against 10 µs + 1 ns a byte, and a batch with it against one without.

    python -m benchmarks.codec

Messages: encode and decode as a checkpoint log does them, one after the other, in this process; a figure is the median
over rounds of the mean of a round. The share of the formula that is used must be at most 1 at every size. Batches: the
product's command line, alternately with and without [encryption]; engine throughput counted at the server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.core.key_settings import LocalKeys
from airflow_provider_ai.core.keyring import keyring_text
from benchmarks import measure, product
from benchmarks.stub import StubServer

SIZES = (0, 100, 300, 1_000, 4_096, 16_384, 65_536, 262_144, 1_048_576, 8_388_608)
ALLOWED_SECONDS, ALLOWED_SECONDS_A_BYTE = 10e-6, 1e-9
_VARIABLE = "BENCHMARK_KEYRING"
_PLACE = {"what": "checkpoint", "partition": "0" * 32 + "/e000/p00000", "name": "log"}


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("What encryption costs.", rows=10_000, quick_rows=500)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=15, help="of each size of message")
    options = measure.read_options(parser, arguments)
    keys = LocalKeys(current="k", keys=(("k", os.urandom(32)),), hash_key=os.urandom(32))
    os.environ[_VARIABLE] = keyring_text(keys)
    messages = [_messages(keys, size, options.rounds) for size in SIZES]
    print(measure.table(list(messages[0]), [[_shown(value) for value in row.values()] for row in messages]), flush=True)
    with (
        product.working_folder(options.work) as work,
        StubServer(latency_ms=options.latency_ms, max_in_flight=product.CONCURRENCY) as stub,
    ):
        data = product.make_data(work / f"visits-{options.rows}", options.rows)
        batches = [
            _batch(side, stub, data, work / f"{side}-{repeat}", options.rows)
            for repeat in range(options.repeats)
            for side in (("encrypted", "clear") if repeat % 2 == 0 else ("clear", "encrypted"))
        ]
    shown = vars(options) | {"messages": messages}
    return measure.report("codec", shown, batches, _claims(messages, batches))


def _messages(keys: LocalKeys, size: int, rounds: int) -> dict[str, Any]:
    codec, data = open_codec(keys), os.urandom(size)
    stored = codec.encode(data, context=_PLACE)
    count = max(5, min(2_000, 20_000_000 // (size + 1_000)))
    encode = _seconds(lambda: codec.encode(data, context=_PLACE), count, rounds)
    decode = _seconds(lambda: codec.decode(stored, context=_PLACE), count, rounds)
    allowed = ALLOWED_SECONDS + size * ALLOWED_SECONDS_A_BYTE
    return {
        "bytes": size,
        "encode_us": encode * 1e6,
        "decode_us": decode * 1e6,
        "encode_share": encode / allowed,
        "decode_share": decode / allowed,
        "added_bytes": len(stored) - size,
    }


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _seconds(work: Callable[[], object], count: int, rounds: int) -> float:
    means = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(count):
            work()
        means.append((time.perf_counter() - started) / count)
    return median(means)


def _batch(side: str, stub: StubServer, data: Path, folder: Path, rows: int) -> dict[str, Any]:
    stub.reset()
    job = product.Job(folder=folder, data=data, url=stub.url, keyring_env=_VARIABLE if side == "encrypted" else None)
    measured = job.run()
    stats = stub.stats()
    if (stats["distinct"], stats["repeated"]) != (rows, 0):
        raise RuntimeError(f"{side}: {stats['distinct']} of {rows} records called, {stats['repeated']} repeated")
    return {
        "side": side,
        "wall_s": measured.wall_seconds,
        "records_per_s": rows / stats["span_seconds"],
        "cpu_ms_per_record": measured.cpu_seconds / rows * 1000,
    }


def _claims(messages: list[dict[str, Any]], batches: list[dict[str, Any]]) -> list[measure.Claim]:
    on, off = ([run["records_per_s"] for run in batches if run["side"] == side] for side in ("encrypted", "clear"))
    formula = "share of 10 µs + 1 ns/byte"
    return [
        measure.Claim(what=f"encode, most {formula}", measured=max(run["encode_share"] for run in messages), limit=1.0),
        measure.Claim(what=f"decode, most {formula}", measured=max(run["decode_share"] for run in messages), limit=1.0),
        measure.Claim(
            what="batch records/s, encrypted / clear", measured=measure.ratio(on, off), limit=0.95, at_most=False
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
