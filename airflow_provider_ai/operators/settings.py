"""What the batch operators are told, beyond the settings they share with the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow.providers.common.compat.sdk import Param

from airflow_provider_ai.core.config import VERBS, Limits, require

VERB_TEMPLATE = "{{ params.get('ai_verb', 'resume') }}"

# The day a run is about, also where Airflow has no `ds`: the DAG param `date`, the key of a partitioned run, the
# logical date, or for a manual run without one the day it was triggered.
RUN_DATE = (
    "{{ params.get('date') or (partition_key | default(none)) or "
    "((logical_date | default(none)) or dag_run.run_after).strftime('%Y-%m-%d') }}"
)

# Airflow's supervisor sends SIGKILL 5 s after SIGTERM when a running task is cleared or marked. The flush must be over.
LONGEST_GRACE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarehouseSink:
    """The table the rows go to. All three are templated.

    :param conn_id: Airflow connection of the warehouse (postgres, sqlite, duckdb, …)
    :param table: created when absent
    :param schema: of the table; the connection's default when absent
    """

    conn_id: str
    table: str
    schema: str | None = None

    def __post_init__(self) -> None:
        require(
            isinstance(self.conn_id, str) and bool(self.conn_id), "sink conn_id must be a connection id", self.conn_id
        )
        require(isinstance(self.table, str) and bool(self.table), "sink table must be a name", self.table)
        ok = self.schema is None or (isinstance(self.schema, str) and bool(self.schema))
        require(ok, "sink schema must be a name or absent", self.schema)

    def rendered(self, render: Callable[[Any], Any]) -> WarehouseSink:
        """The same with its templates rendered: it is frozen, and so cannot be rendered in place."""
        return replace(self, **{name: render(value) for name, value in asdict(self).items() if value})

    def serialize(self) -> dict[str, Any]:
        """How Airflow shows it under Rendered Templates."""
        return {"conn_id": self.conn_id, "table": self.table, "schema": self.schema}


def verb_param(default: str = "resume") -> Param:
    """The DAG param that chooses the verb: ``DAG(…, params={"ai_verb": verb_param()})``."""
    return Param(
        default,
        type="string",
        enum=list(VERBS),
        title="What to do with earlier answers",
        description=(
            "resume: call only what has no answer yet. retry_failed: also call the quarantined records again. "
            "recompute: plan anew and call everything again."
        ),
    )


def date_param() -> Param:
    """The DAG param that names another day than the run's own: ``DAG(…, params={"date": date_param()})``."""
    return Param(
        None,
        type=["null", "string"],
        format="date",
        title="Day",
        description="The day to process. Left empty: the logical date of the run.",
    )


def shared_limits(limits: Limits, *, tasks: int) -> Limits:
    """Each task's share of the limits of a run when ``tasks`` of its partitions run side by side.

    So the run as a whole stays within what its author wrote, whatever Airflow runs in parallel.
    """

    def rate(whole: float | None) -> float | None:
        return None if whole is None else whole / tasks

    return replace(
        limits,
        concurrency=max(1, math.floor(limits.concurrency / tasks)),
        requests_per_minute=rate(limits.requests_per_minute),
        tokens_per_minute=rate(limits.tokens_per_minute),
        stop_grace_seconds=min(limits.stop_grace_seconds, LONGEST_GRACE_SECONDS),
    )
