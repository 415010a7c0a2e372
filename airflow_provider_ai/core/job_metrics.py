"""Counts of a worker and of a dispatcher, and their text for Prometheus. One writing thread; any may read.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4)
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(slots=True)
class Durations:
    """A histogram of seconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class WorkerMetrics:
    """What a worker has done.

    :param outcomes: jobs by the outcome that was recorded here
    :param tries: tries of handlers by how they ended: ``done`` or the reason
    :param told_again: outcomes published again for another delivery of their message
    :param dead_letters: by reason
    :param left: messages left because another worker has their job
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    webhooks: Counter[str] = field(default_factory=Counter)
    receives: int = 0
    redeliveries: int = 0
    told_again: int = 0
    left: int = 0
    given_back: int = 0
    lease_losses: int = 0
    left_behind: int = 0
    in_flight: int = 0
    running: int = 0
    durations: Durations = field(default_factory=Durations)

    def text(self) -> str:
        """For Prometheus."""
        lines = [
            *_labelled("ai_worker_jobs_total", "Jobs by the outcome recorded here.", "outcome", self.outcomes),
            *_labelled("ai_worker_tries_total", "Tries by how they ended.", "ending", self.tries),
            *_labelled("ai_worker_dead_letters_total", "Messages put aside.", "reason", self.dead_letters),
            *_labelled("ai_worker_webhooks_total", "Webhook deliveries by how they ended.", "ending", self.webhooks),
            *_plain("ai_worker_receives_total", "Messages received.", self.receives),
            *_plain("ai_worker_redeliveries_total", "Messages received not for the first time.", self.redeliveries),
            *_plain("ai_worker_told_again_total", "Recorded outcomes published again.", self.told_again),
            *_plain("ai_worker_left_total", "Messages left to a job's other holder.", self.left),
            *_plain("ai_worker_given_back_total", "Jobs given back for another try.", self.given_back),
            *_plain("ai_worker_lease_losses_total", "Leases lost while their job was handled.", self.lease_losses),
            *_plain("ai_worker_left_behind_total", "Handlers that did not stop when told to.", self.left_behind),
            *_plain("ai_worker_in_flight", "Messages not yet done.", self.in_flight, "gauge"),
            *_plain("ai_worker_running", "Jobs being handled.", self.running, "gauge"),
            *_histogram("ai_worker_handler_seconds", "What tries took.", self.durations),
        ]
        return "\n".join([*lines, ""])


@dataclass(slots=True)
class DispatcherMetrics:
    """What a dispatcher has done. Its threads count under a lock of their own.

    :param arrived: replies in the inbox, by the way they came
    """

    arrived: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    malformed: int = 0
    resent: int = 0
    expired: int = 0

    def text(self) -> str:
        """For Prometheus."""
        lines = [
            *_labelled("ai_dispatcher_arrived_total", "Outcomes put into the inbox.", "via", self.arrived),
            *_labelled("ai_dispatcher_dead_letters_total", "Dead letters taken in.", "reason", self.dead_letters),
            *_plain("ai_dispatcher_unknown_total", "Replies that belong to no job.", self.unknown),
            *_plain("ai_dispatcher_malformed_total", "Replies that are none.", self.malformed),
            *_plain("ai_dispatcher_resent_total", "Requests sent again.", self.resent),
            *_plain("ai_dispatcher_expired_total", "Jobs recorded as expired.", self.expired),
        ]
        return "\n".join([*lines, ""])


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _plain(name: str, text: str, value: float, kind: str = "counter") -> Iterator[str]:
    yield from _head(name, text, kind)
    yield f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _labelled(name: str, text: str, label: str, counts: Counter[str]) -> Iterator[str]:
    """Label values are words of ours: they need no escaping."""
    yield from _head(name, text, "counter")
    for value, number in sorted(counts.copy().items()):
        yield f'{name}{{{label}="{value}"}} {number}'


def _histogram(name: str, text: str, durations: Durations) -> Iterator[str]:
    yield from _head(name, text, "histogram")
    running = 0
    for bound, number in zip(BOUNDS, durations.buckets, strict=False):
        running += number
        yield f'{name}_bucket{{le="{bound:g}"}} {running}'
    yield f'{name}_bucket{{le="+Inf"}} {running + durations.buckets[-1]}'
    yield f"{name}_sum {durations.total:.6f}"
    yield f"{name}_count {running + durations.buckets[-1]}"
