"""Outputs that do not lie in XCom, for the tasks that need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_ai.hooks.storage import DEFAULT_AWS_CONN_ID, storage_options


def load_output(
    answer: Mapping[str, Any], *, aws_conn_id: str | None = DEFAULT_AWS_CONN_ID, keys_conn_id: str | None = None
) -> Any:
    """The output of an answer, checked against its reference when it lies elsewhere (``output_uri``).

    :param answer: what the call returned
    :param aws_conn_id: connection for an ``s3://`` reference; not looked up for others
    :param keys_conn_id: connection of the keys, for an output that was encrypted
    :raises ClaimCheckError: when what lies there is not what was stored
    """
    # pyarrow is not needed to parse a DAG, nor for an output in XCom.
    if "output_ref" not in answer:
        return answer["output"]
    from airflow_provider_ai.adapters.claim_check import load_output as load
    from airflow_provider_ai.adapters.crypto.opening import open_codec
    from airflow_provider_ai.hooks.ai_keys import keys_of

    options = storage_options((answer["output_ref"]["uri"],), aws_conn_id)
    return load(answer, options=options, codec=open_codec(keys_of(keys_conn_id)))
