"""Where people deal with dead letters: look at them, have their jobs done once more, or throw them away.

What is still in the dead letter queue is taken into the store first, as a dispatcher does it, so that no job is left
open and no letter is lost to the queue's retention. Reasons and ids come out of here, never a payload.

A redriven job is a new one, of the next generation, that knows its predecessor. It is in the store before its message
is sent, and its letter goes last: after a crash in between, the same command goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_ports import DeadLetter, DeadLetterStore, JobStore, Transport
from airflow_provider_ai.core.jobs import Job
from airflow_provider_ai.exceptions import MessagesRefusedError
from airflow_provider_ai.patterns.dead_letters import letter_of

Choice = Callable[[DeadLetter], bool]
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did.

    :param letters: dead letters that were chosen
    :param jobs: of them that are jobs anew
    :param sent: of those, the messages that went out now; a dispatcher sends the rest
    :param skipped: letters that stay: of replies, of messages that name no job, and of jobs that are open or succeeded
    """

    letters: int = 0
    jobs: int = 0
    sent: int = 0
    skipped: int = 0


class DeadLetterDesk:
    """See the module.

    :param take: takes a batch of the dead letter queue into the store; how many there were
    :param epoch: seconds since the epoch
    """

    def __init__(
        self,
        *,
        store: JobStore,
        letters: DeadLetterStore,
        transport: Transport,
        take: Callable[[], int],
        epoch: Callable[[], float],
    ) -> None:
        self._store = store
        self._letters = letters
        self._transport = transport
        self._take = take
        self._epoch = epoch

    def letters(self) -> Iterator[DeadLetter]:
        """Those in the store, the oldest first; not those of other deployments that share it."""
        after: DeadLetter | None = None
        while found := self._letters.letters(most=_AT_ONCE, after=after):
            yield from (letter for letter in found if letter.source in self._transport.names)
            after = found[-1]

    def queued(self, *, most: int) -> Sequence[DeadLetter]:
        """Some of those that no dispatcher has taken out of their queue yet; they stay there."""
        return [letter_of(delivery, self._transport) for delivery in self._transport.dead_letters.peek(most=most)]

    def job(self, letter: DeadLetter) -> Job | None:
        """The job of a letter."""
        return None if letter.job_id is None else self._store.job(letter.job_id)

    def take_all(self) -> int:
        """Take what is in the dead letter queue into the store; how many there were."""
        total = 0
        while taken := self._take():
            total += taken
        return total

    def redrive(self, chosen: Choice) -> Redriven:
        """Have the jobs of the chosen letters done once more.

        :raises QueueUnavailableError: when nothing could be sent; the jobs are in the store, and sent by a dispatcher
        """
        done = Redriven()
        for letters in self._groups(chosen):
            done = self._redrive(letters, done)
        return done

    def purge(self, chosen: Choice) -> int:
        """Throw chosen letters away; how many. Their jobs stay failed."""
        return sum(self._remove(letters) for letters in self._groups(chosen))

    def _groups(self, chosen: Choice) -> Iterator[list[DeadLetter]]:
        found = filter(chosen, self.letters())
        while group := list(islice(found, _AT_ONCE)):
            yield group

    def _redrive(self, letters: list[DeadLetter], done: Redriven) -> Redriven:
        ids = list(dict.fromkeys(letter.job_id for letter in letters if letter.job_id and self._asks(letter)))
        jobs = self._store.redrive(ids)
        sent = self._send([job for job in jobs if not job.sent])
        anew = {job.predecessor for job in jobs}
        answered = [letter for letter in letters if letter.job_id in anew]
        self._remove(answered)
        return Redriven(
            letters=done.letters + len(letters),
            jobs=done.jobs + len(jobs),
            sent=done.sent + sent,
            skipped=done.skipped + len(letters) - len(answered),
        )

    def _asks(self, letter: DeadLetter) -> bool:
        """Whether a letter is a request, and speaks for its job."""
        return letter.source == self._transport.requests.name and job_reasons.ends_job(letter.reason)

    def _send(self, jobs: Sequence[Job]) -> int:
        if not jobs:
            return 0
        now = self._epoch()
        try:
            sent = self._transport.requests.send([request_message(job, now=now) for job in jobs])
        except MessagesRefusedError as error:
            sent = error.sent
            for job_id in error.refused:
                self._store.fail(job_id, reason=job_reasons.REQUEST_REFUSED)
        self._store.sent(list(sent))
        return len(sent)

    def _remove(self, letters: Sequence[DeadLetter]) -> int:
        return self._letters.remove([letter.letter_id for letter in letters]) if letters else 0
