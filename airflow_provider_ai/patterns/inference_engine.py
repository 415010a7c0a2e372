"""The inference engine: keeps up to ``concurrency`` calls in flight on one event loop and records every outcome.

Everything that decides lives in ``core`` (verdict) and ``pacing`` (limit, budgets, breaker, backoff); this module moves
calls between the queue, the endpoint and the journals. Invariants:

* An outcome is recorded in the same step of the event loop in which the answer arrived, so a killed process has lost at
  most the calls in flight.
* After the first fatal error nothing new is sent; what is in flight is waited for (for a bounded time) and recorded,
  because it is already paid for.
* Memory holds one block of fresh records, the calls in flight and a bounded number of delayed ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_ai.core.config import EndpointSettings, Limits
from airflow_provider_ai.core.outcomes import Outcome, Quarantined, Succeeded
from airflow_provider_ai.core.ports import (
    CallFailedError,
    Decoded,
    InvalidAnswerError,
    ModelEndpoint,
    Reply,
    Request,
    UnrenderableRecordError,
)
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.core.verdict import Action, Failure, judge
from airflow_provider_ai.exceptions import (
    AIProviderError,
    CheckpointWriteError,
    EndpointUnavailableError,
    QuarantineThresholdError,
    StoppedError,
)
from airflow_provider_ai.patterns.call_queue import CallQueue
from airflow_provider_ai.patterns.pacing import Pacing
from airflow_provider_ai.patterns.tally import Tally
from airflow_provider_ai.patterns.work import Call, PartitionRun, Record

log = logging.getLogger(__name__)

T = TypeVar("T")
RunOpener = Callable[[Callable[[], bool]], PartitionRun]
_TICK_SECONDS = 0.1
_SYNC_FAILURES = 3
_SHOW_LIFE_SECONDS = 3.0  # well below every lease, however long the sync interval is


class InferenceEngine:
    """Infers partitions, one after the other without a gap between them. For one use, in one event loop."""

    def __init__(
        self,
        *,
        endpoint: ModelEndpoint,
        settings: EndpointSettings,
        request: Request,
        limits: Limits,
        quarantine_allowance: int,
        sync_seconds: float,
        stop: StopToken,
        tally: Tally,
        seed: int | None = None,
    ) -> None:
        self.tally = tally
        self._endpoint = endpoint
        self._model = settings.model
        self._request = request
        self._limits = limits
        self._allowance = quarantine_allowance
        self._sync_seconds = sync_seconds
        self._stop = stop
        self._seed = seed
        self._queue = CallQueue(max_delayed=4 * limits.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: list[PartitionRun] = []
        self._closing: list[asyncio.Future[None]] = []
        self._in_flight = 0
        self._timer: asyncio.TimerHandle | None = None
        self._fed = False
        self._error: AIProviderError | None = None
        self._give_up_at = 0.0
        self._hungry = asyncio.Event()
        self._over = asyncio.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ai-reader")
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="ai-checkpoint")

    @property
    def concurrency(self) -> int:
        """Calls allowed in flight now."""
        return self._pacing.concurrency

    @property
    def in_flight(self) -> int:
        """Calls in flight now."""
        return self._in_flight

    async def run(self, openers: Iterable[RunOpener], *, on_tick: Callable[[], None] = lambda: None) -> None:
        """Work through the partitions; raises the AIProviderError that ended it early, if any.

        :param openers: each opens a partition (in the reader thread; may block; is told when to give up)
        :param on_tick: called every tenth of a second from the event loop
        """
        self._loop = asyncio.get_running_loop()
        self._pacing = Pacing(self._limits, now=self._loop.time(), seed=self._seed)
        helpers = [
            self._loop.create_task(self._guarded(work))
            for work in (self._feed(openers), self._keep_time(on_tick), self._keep_synced())
        ]
        try:
            await self._over.wait()
        finally:
            await self._shut_down(helpers)
        if self._error is not None:
            raise self._error

    # --- feeding -------------------------------------------------------------------------------------------------

    async def _feed(self, openers: Iterable[RunOpener]) -> None:
        for opener in openers:
            run = await self._loop.run_in_executor(self._reader, self._opened, opener)
            self.tally.opened(run)
            self._check_allowance()
            if run.pending == 0:
                self._complete(run)
            while not self._halted():
                records = await self._loop.run_in_executor(self._reader, run.next_records)
                if records is None:
                    break
                await self._offer(run, records)
            if self._halted():
                return
        self._fed = True
        self._pump()

    def _opened(self, opener: RunOpener) -> PartitionRun:
        """Open a partition. Noted here, in the reader thread: one that is opened while the run ends is let go too."""
        run = opener(self._halted)
        self._open.append(run)
        return run

    async def _offer(self, run: PartitionRun, records: Sequence[Record]) -> None:
        """Queue the records and wait until they are nearly used up."""
        size = self._request.records_per_request
        self._queue.add(Call(run, records[i : i + size]) for i in range(0, len(records), size))
        self._hungry.clear()
        self._pump()
        if self._queue.fresh > self._limits.concurrency:
            await self._hungry.wait()

    # --- sending -------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what may be sent now; called whenever that may have changed."""
        while (call := self._next()) is not None:
            task = self._loop.create_task(self._perform(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._queue.fresh <= self._limits.concurrency:
            self._hungry.set()
        self._check_over()

    def _next(self) -> Call | None:
        """The next call, counted as in flight; None when there is none that may be sent now."""
        while self._error is None and self._in_flight < self._pacing.concurrency:
            now = self._loop.time()
            call = self._queue.pop(now, prefer_fresh=self._pacing.doubtful)
            if call is None:
                self._wake_at(self._queue.next_due())
                return None
            if not self._render(call, now):
                continue
            wait = self._pacing.wait(call, now)
            if wait == 0.0:
                self._pacing.sent(call, now)
                self._in_flight += 1
                self.tally.requests += 1
                return call
            self._queue.put_back(call, now)
            self._wake_at(None if wait is None else now + wait)
            return None
        return None

    def _render(self, call: Call, now: float) -> bool:
        """Make the request's bytes; a call with a record that cannot be rendered is taken apart instead."""
        if call.encoded is not None:
            return True
        records = call.records
        try:
            call.encoded = self._request.encode(self._model, [r.id for r in records], [r.data for r in records])
        except UnrenderableRecordError as error:
            self._reject(call, f"unrenderable:{error}", None, now)
            return False
        return True

    async def _perform(self, call: Call | None) -> None:
        """Perform a call, then the one that takes its place.

        In the same task, for a new one would start only after every answer that came in the meantime is settled: calls
        would leave, and come back, in ever larger bunches, while the endpoint waits.
        """
        while call is not None:
            await self._perform_one(call)
            call = self._step(self._next)
            self._step(self._pump)

    async def _perform_one(self, call: Call) -> None:
        started = self._loop.time()
        reply: Reply | None = None
        failed: CallFailedError | None = None
        encoded = call.encoded
        assert encoded is not None  # noqa: S101 - _render came before
        try:
            reply = await self._endpoint.post(
                encoded.path, encoded.body, deadline_seconds=self._limits.request_deadline_seconds
            )
        except CallFailedError as error:
            failed = error
        except Exception as error:  # noqa: BLE001 - an endpoint raises nothing else; its records must not get lost
            self._fail(_defect(error))
            return
        finally:
            self._in_flight -= 1
        now = self._loop.time()
        self._step(lambda: self._settle(call, reply, failed, now, now - started))

    def _step(self, work: Callable[[], T]) -> T | None:
        """Do a piece of work in a callback: what goes wrong there must end the run, not leave it waiting forever."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - every error becomes the run's
            self._fail(_as_ours(error), grace_seconds=0.0)
            return None

    # --- settling ------------------------------------------------------------------------------------------------

    def _settle(
        self, call: Call, reply: Reply | None, failed: CallFailedError | None, now: float, round_trip: float
    ) -> None:
        if failed is not None and failed.permanent:
            self._fail(_unreachable(f"{failed}; a retry cannot help until that is fixed"))
            return
        status = None if reply is None else reply.status
        verdict = judge(status, None if failed is None else failed.failure)
        unreachable = failed is not None and failed.failure is Failure.CONNECT
        counts = self._pacing.ended(call, verdict, now, round_trip=round_trip, unreachable=unreachable)
        if verdict.outage and (hopeless := self._pacing.hopeless_after(now)):
            self._fail(_unreachable(f"it has been unreachable for {hopeless:.0f} s"))
        if verdict.action is Action.DECODE and reply is not None:
            self._decode(call, reply, now)
        elif verdict.action is Action.REJECT:
            call.attempts += 1
            self._reject(call, verdict.error_class, status, now)
        elif verdict.action is Action.RETRY and counts:
            self._retry(call, verdict.error_class, status, now, outage=verdict.outage)
        else:
            self._later(call, reply, now)

    def _decode(self, call: Call, reply: Reply, now: float) -> None:
        records = call.records
        try:
            decoded = self._request.decode(reply.body, [record.id for record in records])
        except InvalidAnswerError as error:
            self._retry(call, f"invalid_answer:{error}", reply.status, now)
            return
        self.tally.used(decoded.usage)
        self._pacing.used(call, decoded.usage.prompt_tokens + decoded.usage.completion_tokens, now)
        good = [i for i, output in enumerate(decoded.outputs) if isinstance(output, dict)]
        if good:
            self._succeed(call, decoded, good)
        if len(good) == len(records):
            return
        for record, output in zip(records, decoded.outputs, strict=True):
            if isinstance(output, str):
                single = call if len(records) == 1 else call.part([record], tries=call.tries)
                self._retry(single, f"invalid_output:{output}", reply.status, now)

    def _succeed(self, call: Call, decoded: Decoded, good: Sequence[int]) -> None:
        records = [call.records[i] for i in good]
        self._record(
            call.run,
            Succeeded(
                rows=[record.row for record in records],
                keys=[record.key for record in records],
                ids=[record.id for record in records],
                outputs=[output for output in decoded.outputs if isinstance(output, dict)],
                inferred_at=time.time_ns() // 1000,
                attempts=call.attempts + 1,
                usage=decoded.usage,
            ),
            len(records),
        )
        self.tally.succeeded += len(records)

    def _retry(self, call: Call, error_class: str, status: int | None, now: float, *, outage: bool = False) -> None:
        """A counted failure: again after a backoff, in halves when a group failed twice, or give up."""
        call.tries += 1
        call.attempts += 1
        if len(call.records) > 1 and call.tries >= min(2, self._limits.max_attempts):
            for half in call.split():
                self._queue.delay(half, now + (self._pacing.hold() if outage else 0.0))
        elif len(call.records) == 1 and call.tries >= self._limits.max_attempts:
            self._quarantine(call, error_class, status)
        else:
            self._queue.delay(call, now + self._pacing.backoff(call.tries, outage=outage))

    def _reject(self, call: Call, error_class: str, status: int | None, now: float) -> None:
        """Sending the same (again) cannot help: find the culprit by halving, or give the record up."""
        if len(call.records) > 1:
            for half in call.split():
                self._queue.delay(half, now)
        else:
            self._quarantine(call, error_class, status)

    def _later(self, call: Call, reply: Reply | None, now: float) -> None:
        """Not the records' fault: put the call off without counting."""
        call.throttled += 1
        self._queue.delay(call, now + self._pacing.put_off(call, reply, now))

    def _quarantine(self, call: Call, error_class: str, status: int | None) -> None:
        record = call.records[0]
        self._record(
            call.run,
            Quarantined(
                row=record.row,
                key=record.key,
                error_class=error_class,
                status=status,
                attempts=call.attempts,
                round=call.run.journal.round,
                quarantined_at=time.time_ns() // 1000,
            ),
            1,
        )
        self.tally.gave_up(error_class, status)
        self._check_allowance()

    def _record(self, run: PartitionRun, outcome: Outcome, rows: int) -> None:
        run.journal.record(outcome)
        run.pending -= rows
        if run.pending == 0:
            self._complete(run)

    def _complete(self, run: PartitionRun) -> None:
        self._open.remove(run)
        closing = self._loop.run_in_executor(self._keeper, _finish, run)
        closing.add_done_callback(self._completed)
        self._closing.append(closing)

    def _completed(self, closing: asyncio.Future[None]) -> None:
        """What cannot be sealed ends the run at once: the partitions behind it would be paid for first."""
        error = None if closing.cancelled() else closing.exception()
        if error is not None:
            self._fail(_as_ours(error))

    # --- ending --------------------------------------------------------------------------------------------------

    def _halted(self) -> bool:
        return self._error is not None or self._stop.stopped or self._over.is_set()

    def _fail(self, error: AIProviderError, *, grace_seconds: float | None = None) -> None:
        """Send nothing more; wait for what is in flight, at most ``grace_seconds`` (default: a call's deadline)."""
        grace = self._limits.request_deadline_seconds if grace_seconds is None else grace_seconds
        give_up_at = self._loop.time() + grace
        if self._error is not None:  # the first error stays, but a stop shortens an end that is already under way
            self._give_up_at = min(self._give_up_at, give_up_at)
            return
        self._error = error
        self._give_up_at = give_up_at
        self._hungry.set()
        self._check_over()

    def _check_allowance(self) -> None:
        if self.tally.quarantined > self._allowance:
            self._fail(
                QuarantineThresholdError(
                    f"{self.tally.quarantined} records are quarantined, {self._allowance} are allowed "
                    f"(max_quarantined_fraction = {self._limits.max_quarantined_fraction:g}); most frequent: "
                    f"{self.tally.reasons_text()}. What was paid for is kept. A plain retry calls nothing more: fix "
                    "the cause and run with verb retry_failed, or allow a larger fraction"
                )
            )

    def _check_over(self) -> None:
        drained = self._in_flight == 0 and (self._error is not None or (self._fed and not len(self._queue)))
        if drained or (self._error is not None and self._loop.time() >= self._give_up_at):
            self._over.set()

    async def _shut_down(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        self._over.set()
        for task in [*self._tasks, *helpers]:
            task.cancel()
        await asyncio.gather(*self._tasks, *helpers, return_exceptions=True)
        await self._close_open()  # first what is there: the reader may still be busy for a while
        self._reader.shutdown(wait=True, cancel_futures=True)
        await self._close_open()
        self._keeper.shutdown(wait=True)

    async def _close_open(self) -> None:
        while self._open:
            self._closing.append(self._loop.run_in_executor(self._keeper, self._open.pop().journal.close))
        for result in await asyncio.gather(*self._closing, return_exceptions=True):
            if isinstance(result, BaseException) and self._error is None:
                self._error = _as_ours(result)

    # --- beside the calls ----------------------------------------------------------------------------------------

    async def _guarded(self, work: Awaitable[None]) -> None:
        """A helper that dies must end the run; what is in flight is then still recorded if it can be."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - every error becomes the run's
            self._fail(_as_ours(error))

    async def _keep_time(self, on_tick: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if self._stop.stopped:
                message = f"stopped ({self._stop.reason}); everything finished is kept, a retry resumes"
                self._fail(StoppedError(message), grace_seconds=self._limits.stop_grace_seconds)
            on_tick()
            self._pump()

    async def _keep_synced(self) -> None:
        """Sync once an interval; where that is long, show life in between."""
        failures, synced_at = 0, self._loop.time()
        while True:
            await asyncio.sleep(min(self._sync_seconds, _SHOW_LIFE_SECONDS))
            due = self._sync_seconds <= _SHOW_LIFE_SECONDS or self._loop.time() - synced_at >= self._sync_seconds
            synced_at = self._loop.time() if due else synced_at
            try:
                for run in list(self._open):
                    if run in self._open:  # another one's sync takes time, and this one may be finished meanwhile
                        work = run.journal.sync if due else run.journal.show_life
                        await self._loop.run_in_executor(self._keeper, work)
                failures = 0
            except OSError:
                failures += 1
                if failures >= _SYNC_FAILURES:
                    raise

    def _wake_at(self, when: float | None) -> None:
        if when is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._step, self._pump)


def _finish(run: PartitionRun) -> None:
    try:
        run.journal.complete()
    finally:
        run.journal.close()


def _cannot_keep(error: OSError) -> CheckpointWriteError:
    return CheckpointWriteError(
        f"the checkpoint volume refuses writes ({type(error).__name__}: {error.strerror or 'no reason given'}). No "
        "more calls are made, for their answers could not be kept. Make room or mend the volume; a retry resumes"
    )


def _as_ours(error: BaseException) -> AIProviderError:
    if isinstance(error, AIProviderError):
        return error
    return _cannot_keep(error) if isinstance(error, OSError) else _defect(error)


def _defect(error: BaseException) -> AIProviderError:
    log.debug("defect in the inference engine", exc_info=error)
    return AIProviderError(f"unexpected {type(error).__name__} in the inference engine; a retry resumes")


def _unreachable(detail: str) -> EndpointUnavailableError:
    return EndpointUnavailableError(f"the model endpoint cannot be used: {detail}. What was paid for is kept")
