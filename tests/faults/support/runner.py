"""The command line with faults in it: ``python -m tests.faults.support.runner '{"rules": […]}' batch run SPEC``.

Everything but what the first argument asks for is the product as it is:

* ``rules``: faults at system calls and commits, see :mod:`.system_calls` and :mod:`.commits`
* ``rotate_records``: seal a log after so many records, so that a small batch rotates
* ``lease_seconds``: how long a silent runner keeps its partition
* ``sink_waits``: how long to wait between tries of a dead warehouse, in seconds
* ``mutant``: a broken variant that the invariants must catch, see :mod:`.mutants`
"""

from __future__ import annotations

import json
import sys
from typing import Any

from airflow_provider_ai.adapters.checkpoints import local_storage, object_storage, partition
from airflow_provider_ai.cli import main
from airflow_provider_ai.patterns import batch_inference, inference_engine
from tests.faults.support import commits, mutants, system_calls


def apply(faults: dict[str, Any]) -> None:
    """Put the faults in place."""
    if (records := faults.get("rotate_records")) is not None:
        partition.PartitionCheckpoint.__init__.__kwdefaults__["rotate_records"] = records
    if (seconds := faults.get("lease_seconds")) is not None:
        local_storage.LocalStorage.__init__.__kwdefaults__["lease_seconds"] = seconds
        object_storage.ObjectStorage.__init__.__kwdefaults__["lease_seconds"] = seconds
        inference_engine._SHOW_LIFE_SECONDS = seconds / 5
    if (waits := faults.get("sink_waits")) is not None:
        batch_inference._SINK_WAITS_SECONDS = tuple(waits)
    if (mutant := faults.get("mutant")) is not None:
        mutants.MUTANTS[mutant]()
    rules = [system_calls.Rule(**rule) for rule in faults.get("rules", [])]
    system_calls.install([rule for rule in rules if rule.call != commits.COMMIT])
    commits.install([rule for rule in rules if rule.call == commits.COMMIT])


if __name__ == "__main__":
    apply(json.loads(sys.argv[1]))
    raise SystemExit(main(sys.argv[2:]))
