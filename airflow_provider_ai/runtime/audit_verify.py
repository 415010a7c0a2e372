"""Verifying the audit: heads and events side by side, both in order, so memory stays flat however many there are.

A head is shipped after its events are durable, so whoever reads heads first must find their events. Heads and events
are read while writers go on writing: before anything is called missing, the store is looked at again.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import orjson

from airflow_provider_ai.adapters.audit.event_table import AuditReader
from airflow_provider_ai.adapters.audit.head_places import HeadFile, HeadPlace
from airflow_provider_ai.adapters.audit.signing import HeadVerifier
from airflow_provider_ai.core.audit_chain import Head, SignedHead
from airflow_provider_ai.core.audit_check import ChainWalk, Finding, FindingKind, judge_end

_READ_AHEAD = 32


@dataclass(slots=True)
class AuditReport:
    """What was looked at, and what is wrong.

    :param unsealed: events at the ends of chains that no head vouches for yet: they could have been cut off, or added
    :param findings: how many of each kind
    """

    events: int = 0
    chains: int = 0
    heads: int = 0
    unsealed: int = 0
    seconds: float = 0.0
    findings: Counter[str] = field(default_factory=Counter)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "whole": self.whole,
            "events": self.events,
            "chains": self.chains,
            "heads": self.heads,
            "unsealed": self.unsealed,
            "findings": dict(self.findings.most_common()),
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events / max(self.seconds, 1e-9)),
        }


class HeadSource:
    """Heads by writer, in order, verified.

    :param place: where they were shipped to; None for the copies in the store, which prove less
    :param every: whether to read each of them, and not only the newest of each chain
    """

    def __init__(
        self, verifier: HeadVerifier, *, place: HeadPlace | None, reader: AuditReader, every: bool, since: str
    ) -> None:
        self._verifier = verifier
        self._place = place
        self._reader = reader
        self._every = every
        self._since = since
        self.count = 0

    def chains(self) -> Iterator[tuple[str, list[Head], list[Finding]]]:
        """Each writer that has heads, with the genuine ones, and what is wrong with the others."""
        if self._place is None:
            for writer, documents in groupby(self._reader.heads(), key=itemgetter(0)):
                if writer >= self._since:
                    yield self._counted((writer, *self._judged(writer, ((None, each) for _, each in documents))))
            return
        place = self._place
        with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="ai-audit-heads") as pool:
            ahead: deque[Future[tuple[str, list[Head], list[Finding]]]] = deque()
            for writer, files in groupby(place.files(since=self._since), key=lambda file: file.writer):
                ahead.append(pool.submit(self._read, place, writer, list(files)))
                if len(ahead) > _READ_AHEAD:
                    yield self._counted(ahead.popleft().result())
            while ahead:
                yield self._counted(ahead.popleft().result())

    def _counted(self, chain: tuple[str, list[Head], list[Finding]]) -> tuple[str, list[Head], list[Finding]]:
        self.count += len(chain[1])
        return chain

    def _read(self, place: HeadPlace, writer: str, files: list[HeadFile]) -> tuple[str, list[Head], list[Finding]]:
        """The newest head and a closing one; an older one where those are not genuine."""
        hidden = [Finding(kind=FindingKind.HIDDEN_HEAD, writer=writer, sequence=_number(f)) for f in files if f.hidden]
        wanted = [file for file in files if "closed" in file.name]
        genuine, wrong = self._judged(writer, ((file, place.read(file)) for file in wanted))
        for file in reversed([file for file in files if file not in wanted]):
            if genuine and not self._every:
                break
            heads, findings = self._judged(writer, [(file, place.read(file))])
            genuine += heads
            wrong += findings
        return writer, genuine, wrong + hidden

    def _judged(
        self, writer: str, documents: Iterable[tuple[HeadFile | None, bytes]]
    ) -> tuple[list[Head], list[Finding]]:
        genuine: list[Head] = []
        wrong: list[Finding] = []
        for file, document in documents:
            signed = SignedHead.from_json(document)
            misplaced = signed is not None and file is not None and signed.head.name != file.name
            if signed is None or misplaced or signed.head.writer != writer or not self._verifier.is_genuine(signed):
                number = _number(file) if file is not None else 0 if signed is None else signed.head.sequence
                wrong.append(Finding(kind=FindingKind.FORGED_HEAD, writer=writer, sequence=number))
            else:
                genuine.append(signed.head)
        return genuine, wrong


def verify_audit(
    reader: AuditReader,
    heads: HeadSource | None,
    *,
    found: Callable[[Finding], None],
    since: str = "",
    until: str | None = None,
) -> AuditReport:
    """Walk along all chains; ``found`` is told each finding as it is found.

    :param heads: None: ends of chains, and whole chains, are then not checked
    :param since: writers from this name on: a time such as ``20260101`` is the beginning of one; ``until``: before it
    """
    return _Verification(reader, heads, found, since, until).run()


class _Verification:
    def __init__(
        self,
        reader: AuditReader,
        heads: HeadSource | None,
        found: Callable[[Finding], None],
        since: str,
        until: str | None,
    ) -> None:
        self._reader = reader
        self._source = heads
        self._tell = found
        self._since, self._until = since, until
        self._groups = iter(()) if heads is None else heads.chains()
        self._ahead = next(self._groups, None)
        self._report = AuditReport()
        self._walk = ChainWalk(self._found)
        self._writer: str | None = None
        self._heads: list[Head] = []

    def run(self) -> AuditReport:
        began = time.monotonic()
        for page in self._reader.pages(since=self._since, until=self._until):
            if page[0][0] == page[-1][0]:
                self._feed(page[0][0], page)
                continue
            for writer, rows in groupby(page, key=itemgetter(0)):
                self._feed(writer, list(rows))
        self._finish()
        self._skip_to(None)
        report = self._report
        report.events, report.chains = self._walk.events, self._walk.chains
        report.heads = 0 if self._source is None else self._source.count
        report.seconds = time.monotonic() - began
        return report

    def _found(self, finding: Finding) -> None:
        self._report.findings[finding.kind.value] += 1
        self._tell(finding)

    def _feed(self, writer: str, rows: Sequence[Any]) -> None:
        if writer != self._writer:
            self._finish()
            self._skip_to(writer)
            self._begin(writer)
            self._check_link(rows[0])
        self._walk.feed(rows)

    def _begin(self, writer: str) -> None:
        """``_ahead`` holds the heads of this writer, or of a later one."""
        self._writer, self._heads = writer, []
        if self._ahead is not None and self._ahead[0] == writer:
            _, self._heads, wrong = self._ahead
            self._ahead = next(self._groups, None)
            for finding in wrong:
                self._found(finding)
        self._walk.begin(writer, self._heads)

    def _finish(self) -> None:
        """The end of a chain, once what came meanwhile has been read."""
        if self._writer is None:
            return
        newest = max((head.sequence for head in self._heads), default=0)
        while self._walk.last < newest and (rest := self._reader.rest(self._writer, self._walk.last)):
            self._walk.feed(rest)
        expected = self._source is not None
        findings, unsealed = judge_end(self._writer, self._walk.last, self._heads, expected=expected)
        for finding in findings:
            self._found(finding)
        self._report.unsealed += unsealed
        self._walk.end()
        self._writer = None

    def _skip_to(self, writer: str | None) -> None:
        """Chains that have heads and, until here, no events: those that were begun only now, and those removed."""
        while self._ahead is not None and (writer is None or self._ahead[0] < writer):
            name = self._ahead[0]
            if self._until is not None and name >= self._until:
                return
            rows = self._reader.rest(name, 0)
            self._begin(name)
            self._walk.feed(rows)
            self._finish()

    def _check_link(self, first: Any) -> None:
        """A chain may name the one before it."""
        previous = _link_in(first[5])
        if previous is None or previous[0] < self._since:
            return
        writer, sequence, digest = previous
        there = self._reader.hash_at(writer, sequence)
        if there is None or there.hex() != digest:
            self._found(Finding(kind=FindingKind.REMOVED_PREDECESSOR, writer=writer, sequence=sequence))


def _link_in(facts: Any) -> tuple[str, int, str] | None:
    try:
        previous = orjson.loads(facts)["previous"]
        return str(previous["writer"]), int(previous["sequence"]), str(previous["hash"])
    except (ValueError, KeyError, TypeError):
        return None


def _number(file: HeadFile) -> int:
    return int(file.name.partition("/")[2][:16])
