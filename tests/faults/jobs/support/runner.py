"""The command line with faults in it: ``python -m tests.faults.jobs.support.runner '{"mutant": …}' worker SPEC``.

* ``mutant``: a broken variant that the invariants must catch, see :mod:`.mutants`
* ``die``: where to die, once for each job: see :mod:`.deaths`
"""

from __future__ import annotations

import json
import sys
from typing import Any

from airflow_provider_ai.cli import main
from tests.faults.jobs.support import deaths, mutants


def apply(faults: dict[str, Any]) -> None:
    """Put the faults in place."""
    if (mutant := faults.get("mutant")) is not None:
        mutants.MUTANTS[mutant]()
    if (die := faults.get("die")) is not None:
        deaths.install(**die)


if __name__ == "__main__":
    apply(json.loads(sys.argv[1]))
    raise SystemExit(main(sys.argv[2:]))
