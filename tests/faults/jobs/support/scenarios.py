"""What befalls a deployment, for the product and for its mutants alike."""

from __future__ import annotations

from tests.faults.jobs.support.pack import Pack

FROZEN = range(4)
PLAIN = range(12)
DOUBLED = range(12)
SECONDS = 60.0


def zombie(jobs: Pack) -> None:
    """One worker is frozen with four answered calls; another does its jobs; it wakes, and does one more alone."""
    frozen = jobs.worker("worker-frozen")
    jobs.dispatcher("dispatcher")
    jobs.submit("frozen", FROZEN)
    jobs.tend_until(lambda: jobs.stub.progress()["in_flight"] == 4, deadline_seconds=SECONDS, what="four calls")
    jobs.pause(frozen, seconds=1000)
    heir = jobs.worker("worker-heir")
    jobs.wait("frozen", timeout_seconds=SECONDS)
    jobs.tend_until(lambda: jobs.done("wait-frozen"), deadline_seconds=SECONDS, what="the heir did it all")
    jobs.retire(heir)
    jobs.resume(frozen)
    jobs.submit("after", [1000])
    jobs.wait("after", timeout_seconds=SECONDS)
    jobs.tend_until(lambda: jobs.done("wait-after"), deadline_seconds=SECONDS, what="the zombie works again")


def plain(jobs: Pack) -> None:
    """Nothing befalls it."""
    jobs.worker("worker")
    jobs.dispatcher("dispatcher")
    jobs.submit("plain", PLAIN)
    _finish(jobs, "plain")


def doubled(jobs: Pack) -> None:
    """All requests come once more while they are worked on, and one of the two workers has slots for some."""
    for name in ("worker-one", "worker-two"):
        jobs.worker(name, concurrency=8)
    jobs.dispatcher("dispatcher")
    jobs.submit("doubled", DOUBLED)
    both = len(DOUBLED)
    jobs.tend_until(
        lambda: jobs.stub.progress()["in_flight"] == both, deadline_seconds=SECONDS, what="calls of both workers"
    )
    jobs.fleet.send(jobs.jobs("doubled"))
    _finish(jobs, "doubled")


def _finish(jobs: Pack, key: str) -> None:
    jobs.tend_until(lambda: jobs.done(f"submit-{key}"), deadline_seconds=SECONDS, what="submitted")
    jobs.wait(key, timeout_seconds=SECONDS)
    jobs.tend_until(lambda: jobs.done(f"wait-{key}"), deadline_seconds=SECONDS, what="all jobs ended")
