"""The DAG that ships with the package, on real rows, a real model, a real warehouse; and what it leaves in Airflow."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pyarrow.parquet as pq

from tests.end_to_end.conftest import CANARY, BatchAirflow, Run
from tests.support import clinical_data

DAG_ID = "nightly_risk_scores"


def test_three_nights(batch_airflow: BatchAirflow) -> None:
    """569 patients, one row each with both outputs and where it came from; the quality check agrees."""
    batch = batch_airflow
    clinical_data.write_visits(batch.lake / "visits")
    batch.airflow.environment.backfill(DAG_ID, clinical_data.DATES[0], clinical_data.DATES[-1])
    runs = batch.api.wait_for_backfill(DAG_ID, runs=3, deadline_seconds=150)
    assert [run["logical_date"][:10] for run in runs] == [day.isoformat() for day in clinical_data.DATES]

    [(rows, keys, sources, models, runs_named)] = batch.query(
        "SELECT COUNT(*), COUNT(DISTINCT _record_key), COUNT(DISTINCT _source_file), COUNT(DISTINCT _model),"
        " COUNT(DISTINCT _run_id) FROM risk_scores WHERE predict IN (0, 1) AND predict_proba IS NOT NULL"
    )
    assert (rows, keys, sources, models, runs_named) == (569, 569, 3, 1, 3)
    [(benign,)] = batch.query("SELECT COUNT(*) FROM risk_scores WHERE predict = 1")
    assert abs(benign - 357) <= 15  # the data hold 357 benign cases, and the model is about 98 % right

    again = Run(
        api=batch.api,
        dag_id=DAG_ID,
        run_id=batch.api.trigger(DAG_ID, conf={"date": clinical_data.DATES[0].isoformat()}),
    )
    again.wait()
    reports = [again.xcom("infer", map_index=ti["map_index"]) for ti in again.instances("infer")]
    assert sum(report["reused"] for report in reports) == 190
    assert sum(report["requests"] for report in reports) == 0


def texts_with(mark: str, url: str) -> Iterator[tuple[str, int]]:
    """Table → rows whose text shows a mark."""
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            found = connection.execute(f'SELECT COUNT(*) FROM "{table}" t WHERE t::text LIKE %s', [f"%{mark}%"])
            row = found.fetchone()
            yield table, 0 if row is None else row[0]


def test_nothing_of_a_record_is_in_airflow(batch_airflow: BatchAirflow) -> None:
    """No record id, no note and no API key: neither in the metadata database nor in any log of all these tests."""
    batch = batch_airflow
    batch.write("canary", 20)
    batch.run("canary")
    counts = dict(texts_with(CANARY, batch.metadata))
    assert len(counts) > 20
    assert {table: found for table, found in counts.items() if found} == {}
    logs = [path for path in batch.airflow.environment.home.rglob("*.log") if path.is_file()]
    assert len(logs) > 5
    assert [str(path) for path in logs if CANARY in path.read_text(errors="replace")] == []
    [row, *_] = pq.read_table(batch.lake / "canary" / "part-0.parquet").to_pylist()
    assert all(CANARY in value for value in row.values())  # it is really there to be found
