"""The formats by name. A format's libraries are loaded when the format is used."""

from __future__ import annotations

from airflow_provider_ai.adapters.datasets.formats import FileFormat
from airflow_provider_ai.core.manifest import DatasetFormat


def file_format(name: DatasetFormat) -> FileFormat:
    """The format of that name."""
    if name == "parquet":
        from airflow_provider_ai.adapters.datasets.parquet import ParquetFormat

        return ParquetFormat()
    if name == "csv":
        from airflow_provider_ai.adapters.datasets.csv import CsvFormat

        return CsvFormat()
    from airflow_provider_ai.adapters.datasets.jsonl import JsonLinesFormat

    return JsonLinesFormat()
