"""Datasets of Parquet, CSV and JSON Lines files: planned once, then read partition by partition.

``listing`` finds the files, one module per format looks into them behind the interface in ``formats``, ``ids`` refuses
missing and duplicate ids, ``columns`` makes one schema of many, ``planning`` puts the plan together and ``reader``
follows it.
"""

from __future__ import annotations

from airflow_provider_ai.adapters.datasets.planning import (
    input_difference,
    listing_digest,
    plan_dataset,
    rewritten_files,
    verify_unchanged,
)
from airflow_provider_ai.adapters.datasets.reader import DatasetReader

__all__ = ["DatasetReader", "input_difference", "listing_digest", "plan_dataset", "rewritten_files", "verify_unchanged"]
