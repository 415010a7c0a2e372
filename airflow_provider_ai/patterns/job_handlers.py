"""What does the work of a job: a model endpoint, or a function of the user's.

A function runs in a thread of its own kind, never in the worker's event loop: one that blocks holds up other functions,
but no heartbeat. ``async`` functions share one loop; plain functions get a thread each and may block as they like.
Cancelling ends an ``async`` function at its next ``await`` and leaves a plain one behind.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.backoff import retry_after_seconds
from airflow_provider_ai.core.call_inputs import CallRecords, output_of, records_of
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.job_handling import (
    Ending,
    EndingKind,
    HandledJob,
    PostponedJobError,
    RejectedJobError,
)
from airflow_provider_ai.core.job_results import NotPlainError, plain_json
from airflow_provider_ai.core.ports import (
    CallFailedError,
    InvalidAnswerError,
    ModelEndpoint,
    Reply,
    Request,
    UnrenderableRecordError,
)
from airflow_provider_ai.core.verdict import Action, judge
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads, NoThreadError

Function = Callable[[HandledJob], Any]
_KINDS = {Action.LATER: EndingKind.LATER, Action.RETRY: EndingKind.RETRY, Action.REJECT: EndingKind.REJECTED}
log = logging.getLogger(__name__)


class EndpointHandler:
    """Asks a model endpoint. A payload is what a synchronous call takes as its inputs: a record, or a list of them."""

    def __init__(
        self,
        endpoint: ModelEndpoint,
        *,
        settings: EndpointSettings,
        request: Request,
        epoch: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._model = settings.model
        self._request = request
        self._epoch = epoch

    async def handle(self, job: HandledJob, *, deadline_seconds: float) -> Ending:
        """One call."""
        try:
            records = records_of(job.payload, protocol=self._request.protocol)
            encoded = self._request.encode(self._model, records.ids, records.records)
        except UnrenderableRecordError as error:
            return Ending(kind=EndingKind.REJECTED, reason=str(error))
        try:
            reply = await self._endpoint.post(encoded.path, encoded.body, deadline_seconds=deadline_seconds)
        except CallFailedError as error:
            return _failed(error)
        return self._judged(reply, records)

    def _judged(self, reply: Reply, records: CallRecords) -> Ending:
        verdict = judge(reply.status)
        if verdict.action is not Action.DECODE:
            wait = retry_after_seconds(reply.retry_after, now=self._epoch())
            return Ending(kind=_KINDS[verdict.action], reason=verdict.error_class, retry_after_seconds=wait)
        try:
            decoded = self._request.decode(reply.body, records.ids)
            output = output_of(decoded, records, protocol=self._request.protocol)
        except InvalidAnswerError as error:
            return Ending(kind=EndingKind.RETRY, reason=str(error))
        return Ending(kind=EndingKind.DONE, output=orjson.dumps(output))


def _failed(error: CallFailedError) -> Ending:
    """How a call without an answer ended. One that can never succeed (a refused certificate) is not the job's fault."""
    verdict = judge(None, error.failure)
    if error.permanent:
        log.error("the endpoint cannot be called: %s", error)
        return Ending(kind=EndingKind.LATER, reason=verdict.error_class)
    return Ending(kind=_KINDS[verdict.action], reason=verdict.error_class)


class FunctionHandler:
    """Calls ``function(job)``. To be closed.

    :param most_threads: plain functions at a time, those included that were left behind
    """

    def __init__(self, function: Function, *, most_threads: int) -> None:
        self._function = function
        self._asynchronous = _is_asynchronous(function)
        self._threads = DaemonThreads(most=most_threads)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle(self, job: HandledJob, *, deadline_seconds: float) -> Ending:
        """One call of the function."""
        try:
            return Ending(kind=EndingKind.DONE, output=plain_json(await self._called(job)))
        except RejectedJobError as error:
            return Ending(kind=EndingKind.REJECTED, reason=job_reasons.word(error.reason))
        except PostponedJobError as error:
            reason, wait = job_reasons.word(error.reason), error.retry_after_seconds
            return Ending(kind=EndingKind.LATER, reason=reason, retry_after_seconds=wait)
        except NotPlainError:
            return Ending(kind=EndingKind.RETRY, reason=job_reasons.INVALID_RESULT)
        except NoThreadError:
            return Ending(kind=EndingKind.LATER, reason=job_reasons.NO_THREAD)
        except Exception as error:
            log.warning("the handler raised %s for job %s", type(error).__name__, job.job_id)
            log.debug("the handler's error", exc_info=error)
            return Ending(kind=EndingKind.RETRY, reason=job_reasons.HANDLER_ERROR)

    def close(self) -> None:
        """Let loop and threads go."""
        self._threads.close()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _called(self, job: HandledJob) -> Any:
        if self._asynchronous:
            return await self._in_their_loop(self._function(job))
        result = await self._in_a_thread(job)
        return await self._in_their_loop(result) if inspect.iscoroutine(result) else result

    async def _in_their_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None:
            self._loop = _started_loop()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_kept_in(work), self._loop))

    async def _in_a_thread(self, job: HandledJob) -> Any:
        ours = asyncio.get_running_loop()
        done: asyncio.Future[Any] = ours.create_future()

        def work() -> None:
            try:
                result = self._function(job)
            except BaseException as error:  # noqa: BLE001 - handed over
                ours.call_soon_threadsafe(_set_error, done, error)
            else:
                ours.call_soon_threadsafe(_set_result, done, result)

        self._threads.start(work)
        return await done


def _is_asynchronous(function: Function) -> bool:
    """Whether calling it blocks nothing; an object may be such a function by its ``__call__``."""
    return any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None))))  # noqa: B004


async def _kept_in(work: Coroutine[Any, Any, Any]) -> Any:
    """A function that calls sys.exit() ends itself, and not the loop of all the others."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(type(error).__name__) from None


def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="ai-handlers", daemon=True).start()
    return loop


def _set_result(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
