"""Protocol ``open-inference`` against the server it was written for: MLServer with a scikit-learn model."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ai.core.requests import OpenInferenceRequest
from tests.support.clinical_data import feature_columns, real_rows

if TYPE_CHECKING:
    from tests.support.mlserver import ModelServer

ROWS = 64
TIMEOUT_SECONDS = 30


def _answer(server: ModelServer, model: str, request: OpenInferenceRequest, records: list[dict[str, Any]]) -> Any:
    encoded = request.encode(model, range(len(records)), records)
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(server.url + encoded.path, data=encoded.body, headers=headers)
    with urllib.request.urlopen(call, timeout=TIMEOUT_SECONDS) as reply:
        return list(request.decode(reply.read(), range(len(records))).outputs)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("breast-cancer", {}),
        ("breast-cancer", {"datatype": "FP32"}),
        ("breast-cancer-columns", {"layout": "columns", "parameters": {"content_type": "pd"}}),
    ],
)
def test_real_patients_are_scored_the_same_in_each_layout(
    model_server: ModelServer, model: str, settings: dict[str, Any]
) -> None:
    records = real_rows().slice(0, ROWS).to_pylist()
    columns = feature_columns()
    labels = _answer(model_server, model, OpenInferenceRequest(columns=columns, **settings), records)
    assert {tuple(label) for label in labels} == {("predict",)}
    assert {label["predict"] for label in labels} == {0, 1}
    request = OpenInferenceRequest(columns=columns, output_names=["predict_proba"], **settings)
    chances = _answer(model_server, model, request, records)
    for label, chance in zip(labels, chances, strict=True):
        malignant, benign = chance["predict_proba"]
        assert malignant + benign == pytest.approx(1)
        assert label["predict"] == (benign > malignant)
