"""How a partition is published, whatever the database: the one place that knows the steps.

Invariants, and what holds them:

* Readers see all of the old or all of the new: rows and marker change in one transaction.
* One copy, with any number of runners: publishers of one partition take turns, and each replaces what it finds.
* No record twice while a new plan takes over from an old one: rows of other plans in the scope go, record by record, as
  their keys arrive. The keys are known before the first new row is in the table (they pass through a temporary one), so
  a unique constraint of the user's own holds throughout.
* No value in an error: see :mod:`.failures`. Errors are raised outside the handler of the driver's, so that not even a
  traceback's context leads back to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import sqlalchemy as sa

from airflow_provider_ai.adapters.sinks.failures import unexpected
from airflow_provider_ai.adapters.sinks.layout import CreateTemporary, Layout
from airflow_provider_ai.adapters.sinks.row_source import RowSource
from airflow_provider_ai.adapters.sinks.session import Session, Warehouse
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.ports import Publication, PublishUnit
from airflow_provider_ai.exceptions import AIProviderError, SinkError

T = TypeVar("T")
_NAMES_PER_STATEMENT = 500  # bound parameters are limited everywhere, at 999 in the oldest SQLite
_DDL_ATTEMPTS = 3

OtherPlans = list[tuple[Any, ...]]
"""Partitions of other plans in a scope, with the time each was published."""


class TableSink:
    """The :class:`core.ports.Sink` of one table. Holds no connection between operations."""

    def __init__(self, settings: SinkSettings, warehouse: Warehouse) -> None:
        self._settings = settings
        self._warehouse = warehouse
        self._table = settings.table

    def publish(self, unit: PublishUnit, schema: Any, batches: Iterable[Any]) -> int:
        """Replace the unit's partition in one transaction; rows written, 0 when it stood there already.

        :param batches: pyarrow.RecordBatch of ``schema``; read only when there is something to write
        :raises SinkUnavailableError: the warehouse is down or locked; the table is as it was
        :raises SinkError: the rows cannot go into the table; the table is as it was
        """
        source = RowSource(unit, schema, batches)
        return self._speaking(partial(self._publish, source), source)

    def publications(self, scope: str) -> dict[str, Publication]:
        """Published partitions of a scope by name, each with the rows that are really there."""
        if not self._speaking(self._warehouse.exists):
            return {}
        return self._speaking(partial(self._publications, scope))

    def prune(self, scope: str, *, plan: str) -> int:
        """Remove what other plans published in a scope, markers included, in one transaction; rows removed."""
        if not self._speaking(self._warehouse.exists):
            return 0
        return self._speaking(partial(self._prune, scope, plan))

    def close(self) -> None:
        """Release connections."""
        self._warehouse.close()

    # --- publish

    def _publish(self, source: RowSource) -> int:
        unit = source.unit
        with self._open(reading=False) as session:
            layout = _prepared(session, self._table, source.schema)
            session.prepare_lock(self._table, unit.scope)
            with session.transaction():
                session.lock_publish(self._table, unit.scope, unit.partition)
                written = _Publishing(session, layout, source, self._table).run()
            if written:
                session.published(self._table)
            return unit.rows if written else 0

    # --- publications

    def _publications(self, scope: str) -> dict[str, Publication]:
        with self._open(reading=True) as session, session.transaction(reading=True):
            layout = Layout(session, self._table).refresh()
            if not layout.has_markers():
                return {}
            marker = layout.markers.c
            found = session.run(
                sa.select(marker.partition, marker.plan, marker.content, marker.rows).where(
                    marker.target_table == self._table, marker.scope == scope
                )
            )
            present = _rows_present(session, layout, [row[0] for row in found])
        return {
            name: Publication(partition=name, plan=plan, content=content, rows=rows, rows_present=present.get(name, 0))
            for name, plan, content, rows in found
        }

    # --- prune

    def _prune(self, scope: str, plan: str) -> int:
        with self._open(reading=False) as session:
            with session.transaction(reading=True):
                if not Layout(session, self._table).has_markers():
                    return 0
            session.prepare_lock(self._table, scope)
            with session.transaction():
                session.lock_prune(self._table, scope)
                layout = Layout(session, self._table).refresh()
                names = [name for name, _ in _other_plans(session, layout, self._table, scope, plan)]
                removed = sum(_rows_present(session, layout, names).values())
                for some in _chunks(names):
                    if removed:
                        session.run(sa.delete(layout.target).where(layout.column("_partition").in_(some)))
                    _delete_markers(session, layout, self._table, some)
        return removed

    # --- plumbing

    def _open(self, *, reading: bool) -> Any:
        return self._warehouse.open(self._settings.schema, reading=reading)

    def _speaking(self, work: Callable[[], T], source: RowSource | None = None) -> T:
        """Do it; what fails is raised in our words, or as itself when it came from the source of the rows."""
        failure: BaseException
        try:
            return work()
        except AIProviderError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - any driver error, and none of its text may get out
            failure = self._explained(error)
        if source is not None and source.error is not None:
            failure = source.error
        if isinstance(failure, SinkError):
            failure.__context__ = None
        raise failure

    def _explained(self, error: Exception) -> AIProviderError:
        try:
            return self._warehouse.explain(error)
        except Exception:  # noqa: BLE001 - the explanation must not be worse than the error
            return unexpected(self._warehouse.where, error)


class _Publishing:
    """One partition inside its transaction, with the locks held."""

    def __init__(self, session: Session, layout: Layout, source: RowSource, table: str) -> None:
        self._session = session
        self._layout = layout
        self._source = source
        self._unit = source.unit
        self._table = table

    def run(self) -> bool:
        """Whether anything had to be written."""
        if self._stands():
            return False
        self._session.run(sa.delete(self._layout.target).where(self._own()))
        others = self._others()
        if others and self._session.can_stage:
            self._load_staged(others)
        else:
            self._load(self._layout.target, temporary=False)
            self._supersede(others, self._new_keys(self._layout.target))
        self._settle(others)
        self._mark()
        return True

    def _own(self) -> sa.ColumnElement[bool]:
        return self._layout.column("_partition") == self._unit.partition

    def _stands(self) -> bool:
        unit, marker = self._unit, self._layout.markers.c
        found = self._session.run(
            sa.select(marker.scope, marker.plan, marker.content, marker.rows).where(
                marker.target_table == self._table, marker.partition == unit.partition
            )
        )
        if [tuple(row) for row in found] != [(unit.scope, unit.plan, unit.content, unit.rows)]:
            return False
        return _rows_present(self._session, self._layout, [unit.partition]).get(unit.partition, 0) == unit.rows

    def _others(self) -> OtherPlans:
        unit = self._unit
        found = _other_plans(self._session, self._layout, self._table, unit.scope, unit.plan)
        return [other for other in found if other[0] != unit.partition]  # its own rows are replaced as a whole

    def _load(self, into: sa.TableClause, *, temporary: bool) -> None:
        fits = self._layout.fits(self._source.schema)
        columns = [fit.column for fit in fits]
        self._session.load(into, columns, self._source.reader(fits), temporary=temporary)

    def _load_staged(self, others: OtherPlans) -> None:
        """Through a temporary table, so that the old row of a record goes before the new one comes."""
        target = self._layout.target
        columns = {item.column.name: item.column for item in self._layout.fits(self._source.schema)}
        staging = self._layout.clause(f"_ai_staging_{uuid4().hex[:12]}", columns.values(), schema=None)
        names = [column.name for column in staging.columns]
        like = sa.select(*(target.c[name] for name in names)).where(sa.literal_column("1") == sa.literal_column("0"))
        self._session.run(CreateTemporary(staging, like))
        self._load(staging, temporary=True)
        self._supersede(others, self._new_keys(staging))
        self._session.run(sa.insert(target).from_select(names, sa.select(*staging.columns)))

    def _new_keys(self, table: sa.TableClause) -> sa.Select[Any]:
        """The record keys of this partition, from the target or from the temporary table."""
        rows = table.alias("new_rows")
        key, partition = (rows.c[self._layout.column(name).name] for name in ("_record_key", "_partition"))
        keys = sa.select(key).where(partition == self._unit.partition, key.is_not(None))
        # MySQL refuses to read, in a subquery, the table it deletes from; in a derived table it does not.
        return sa.select(keys.subquery("new_keys").columns[0])

    def _supersede(self, others: OtherPlans, keys: sa.Select[Any]) -> None:
        partition, key = self._layout.column("_partition"), self._layout.column("_record_key")
        for some in _chunks([name for name, _ in others]):
            self._session.run(sa.delete(self._layout.target).where(partition.in_(some), key.in_(keys)))

    def _settle(self, known: OtherPlans) -> None:
        """Supersede also what other plans committed since the start, and let nobody commit before us from here on."""
        if not self._session.lock_commit(self._table, self._unit.scope):
            return
        late = list(set(self._others()).difference(known))
        self._supersede(late, self._new_keys(self._layout.target))

    def _mark(self) -> None:
        unit = self._unit
        _delete_markers(self._session, self._layout, self._table, [unit.partition])
        self._session.run(
            sa.insert(self._layout.markers).values(
                target_table=self._table,
                scope=unit.scope,
                partition=unit.partition,
                plan=unit.plan,
                content=unit.content,
                rows=unit.rows,
                run_id=unit.run_id,
                published_at=self._session.instant(datetime.now(UTC)),
            )
        )


def _prepared(session: Session, table: str, schema: Any) -> Layout:
    """Create what is missing, in a transaction of its own, and return the tables as they are then."""
    layout = Layout(session, table)
    for attempt in range(1, _DDL_ATTEMPTS + 1):
        # Looking needs a transaction too: only in one does the wait for somebody's lock on the table end.
        with session.transaction(reading=True):
            if not layout.missing(schema):
                break
        try:
            with session.transaction():
                session.lock_tables(table)
                for statement in layout.missing(schema):
                    session.run(statement)
        except AIProviderError:
            raise
        except Exception:
            # Where DDL cannot be locked, another publisher may have been faster: look again.
            if attempt == _DDL_ATTEMPTS:
                raise
    with session.transaction(reading=True):
        return layout.refresh()


def _other_plans(session: Session, layout: Layout, table: str, scope: str, plan: str) -> OtherPlans:
    marker = layout.markers.c
    return session.run(
        sa.select(marker.partition, marker.published_at).where(
            marker.target_table == table, marker.scope == scope, marker.plan != plan
        )
    )


def _rows_present(session: Session, layout: Layout, names: Sequence[str]) -> dict[str, int]:
    if layout.found is None:
        return {}
    counts: dict[str, int] = {}
    partition = layout.column("_partition")
    for some in _chunks(names):
        query = sa.select(partition, sa.func.count()).where(partition.in_(some)).group_by(partition)
        counts.update((name, count) for name, count in session.run(query))
    return counts


def _delete_markers(session: Session, layout: Layout, table: str, names: Sequence[str]) -> None:
    marker = layout.markers.c
    session.run(sa.delete(layout.markers).where(marker.target_table == table, marker.partition.in_(names)))


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _NAMES_PER_STATEMENT):
        yield names[start : start + _NAMES_PER_STATEMENT]
