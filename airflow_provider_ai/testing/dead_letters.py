"""Dead letters in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from airflow_provider_ai.core.job_ports import DeadLetter


class InMemoryDeadLetters:
    """A :class:`~airflow_provider_ai.core.job_ports.DeadLetterStore`.

    :param clock: epoch seconds
    :param require: called before everything; what it raises is raised
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, require: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._require = require
        self._letters: dict[str, DeadLetter] = {}

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep those that are not there yet."""
        self._require()
        for letter in letters:
            self._letters.setdefault(letter.letter_id, replace(letter, received_at=self._clock()))

    def letters(self, *, most: int, after: DeadLetter | None = None) -> Sequence[DeadLetter]:
        """Letters in the order in which they came, from ``after`` on."""
        self._require()
        ordered = sorted(self._letters.values(), key=_order)
        return [letter for letter in ordered if after is None or _order(letter) > _order(after)][:most]

    def letter(self, letter_id: str) -> DeadLetter | None:
        """One letter."""
        self._require()
        return self._letters.get(letter_id)

    def remove(self, letter_ids: Sequence[str]) -> int:
        """Forget letters; how many there were."""
        self._require()
        return sum(self._letters.pop(letter_id, None) is not None for letter_id in dict.fromkeys(letter_ids))


def _order(letter: DeadLetter) -> tuple[float, str]:
    return letter.received_at, letter.letter_id
