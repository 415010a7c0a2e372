"""Where the commands look for modules of the user's: where Python does, and then beside the spec.

A command is a script of the environment it is installed in, so Python itself would look neither there nor in the
working directory. The spec's folder comes last: nothing that lies beside a spec takes the place of what is installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def look_beside(spec: str) -> None:
    """From now on modules beside this spec can be imported."""
    folder = str(Path(os.path.abspath(spec)).parent)  # noqa: PTH100 - resolve() would follow links, as in specs
    if folder not in sys.path:
        sys.path.append(folder)
