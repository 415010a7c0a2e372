"""Train the demo model and lay out MLServer's model repository. Runs in the model server's own environment.

The model is trained on scikit-learn's bundled breast-cancer data: 569 real patients, 30 measurements each.
Usage: train_model.py REPOSITORY_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(repository: Path) -> None:
    features, diagnosis = load_breast_cancer(return_X_y=True, as_frame=True)
    features.columns = [name.replace(" ", "_") for name in features.columns]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, diagnosis)
    _lay_out(repository / "breast-cancer", model, {})
    _lay_out(repository / "breast-cancer-columns", model, {"content_type": "pd"})


def _lay_out(folder: Path, model: object, parameters: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    settings = {
        "name": folder.name,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "1", **parameters},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
