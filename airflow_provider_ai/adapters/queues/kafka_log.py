"""What librdkafka says, said less often: while a broker is away it reports each of its attempts, many a second."""

from __future__ import annotations

import logging
import re
import threading
import time

SAID_AGAIN_SECONDS = 60.0
_NUMBERS = re.compile(r"\d+")


class Seldom(logging.Filter):
    """Lets a message pass once a minute, whatever its numbers are: clients, ports, milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is said."""
        words, now = _NUMBERS.sub("", record.getMessage()), time.monotonic()
        with self._lock:
            if now - self._said.get(words, float("-inf")) < SAID_AGAIN_SECONDS:
                return False
            self._said[words] = now
        return True


def librdkafka_log() -> logging.Logger:
    """The logger to give to a client; all clients of a process share it."""
    logger = logging.getLogger(__name__)
    if not any(isinstance(each, Seldom) for each in logger.filters):
        logger.addFilter(Seldom())
    return logger
