"""``airflow-ai call``: a spec and inputs in, the answer as one JSON line and an exit code out.

Everything slow (imports, the spec, opening the store) is done before the deadline begins.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.cli.audit_spec import audited
from airflow_provider_ai.cli.endings import COMPLETE, Endings, attempt
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.cli.user_modules import look_beside
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.answer import Answer

DEGRADED = 4
_ENDINGS = Endings(
    advice=((SpecError, "correct it, then call again; nothing was sent"),), otherwise="call again; nothing is kept"
)
log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace, runtime: Any) -> int:
    """``call``; the exit code. ``runtime``: makes a caller, as ``SyncCaller`` does; None for the real one."""

    def work() -> Answer:
        from airflow_provider_ai.cli.call_spec import load_call_spec

        spec = load_call_spec(arguments.spec)
        for key in spec.unused:
            log.warning("%r in [endpoint] is not used by protocol %r", key, spec.endpoint.protocol)
        inputs = _read_inputs(arguments.input)
        look_beside(arguments.spec)
        make = _sync_caller() if runtime is None else runtime
        with make(
            endpoint=spec.endpoint,
            request=spec.request,
            fallback=spec.fallback,
            settings=spec.settings,
            store=spec.store,
            **({} if spec.keys is None else {"keys": spec.keys}),
            **audited(spec.audit, "submitter"),
        ) as caller:
            answer: Answer = caller.call(inputs)
        return answer

    with logging_to(sys.stderr, arguments.log_level):
        answer, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if answer is None:
        return code
    print(json.dumps(answer.to_dict()), flush=True)
    return DEGRADED if answer.degraded and arguments.fail_on_degraded else COMPLETE


def _sync_caller() -> Any:
    from airflow_provider_ai.runtime.sync_call import SyncCaller

    return SyncCaller


def _read_inputs(path: str) -> Any:
    """The document in the input file. Whether it is fit to be sent is the call's to say: that ends as an answer too."""
    try:
        text = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return json.loads(text)
    except OSError as error:
        raise SpecError(f"{path}: the input cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise SpecError(f"{path}: the input must be a JSON document in UTF-8") from None
