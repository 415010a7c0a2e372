"""The built wheel: what Airflow, pip and type checkers will find in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from email.message import Message
from email.parser import Parser
from functools import partial
from importlib.metadata import EntryPoint, distribution, distributions, packages_distributions

import jsonschema
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import airflow_provider_ai
from airflow_provider_ai.get_provider_info import get_provider_info
from tests.support.processes import REPOSITORY
from tests.test_boundaries import imports, layer_of, module_name, sources

NAME = "airflow-provider-ai"
BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"

# What Airflow itself brings and promises to plugins and providers; declaring it again could only contradict Airflow.
BROUGHT_BY_AIRFLOW = {"fastapi", "starlette"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the sources, so that nothing is left in the tree."""
    copy = tmp_path_factory.mktemp("sources")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "airflow_provider_ai", copy / "airflow_provider_ai", ignore=ignore)
    for path in REPOSITORY.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    subprocess.run([sys.executable, "-c", BUILD, str(copy)], cwd=copy, check=True, capture_output=True, text=True)
    return zipfile.ZipFile(next(copy.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(_dist_info(wheel, "METADATA")).decode())


def _dist_info(wheel: zipfile.ZipFile, file: str) -> str:
    return f"airflow_provider_ai-{airflow_provider_ai.__version__}.dist-info/{file}"


def test_metadata(metadata: Message) -> None:
    """Name, version, licence and Python as promised."""
    assert metadata["Name"] == NAME
    assert metadata["Version"] == airflow_provider_ai.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_provider_info_names_the_distribution(metadata: Message) -> None:
    """Airflow ignores a provider whose package-name is not the name of its distribution."""
    info = get_provider_info()
    assert info["package-name"] == metadata["Name"]
    assert info["versions"][0] == metadata["Version"]


def test_provider_info_fits_airflows_schema() -> None:
    """Airflow refuses a provider whose info does not validate; the schema is that of the Airflow installed."""
    schema = json.loads(
        distribution("apache-airflow-core").locate_file("airflow/provider_info.schema.json").read_text()
    )
    jsonschema.validate(get_provider_info(), schema)


def test_entry_points_lead_somewhere(wheel: zipfile.ZipFile) -> None:
    """Airflow finds the provider and the shell finds the command."""
    lines = wheel.read(_dist_info(wheel, "entry_points.txt")).decode().splitlines()
    pairs = dict(line.split(" = ") for line in lines if " = " in line)
    assert pairs.keys() >= {"provider_info", "airflow-ai"}
    entry = partial(EntryPoint, group="any")
    assert entry(name="provider_info", value=pairs["provider_info"]).load() is get_provider_info
    assert callable(entry(name="airflow-ai", value=pairs["airflow-ai"]).load())


def test_every_module_and_the_type_marker_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """A folder without `__init__.py` would silently stay out; tests and benchmarks must."""
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    modules = {str(source.relative_to(REPOSITORY)) for source in sources()}
    assert sorted((modules | {"airflow_provider_ai/py.typed"}) - files) == []
    assert {name.partition("/")[0] for name in files} == {"airflow_provider_ai"}


def test_the_licence_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """Apache-2.0 asks for its text to come along."""
    assert b"Apache License" in wheel.read(_dist_info(wheel, "licenses/LICENSE"))


def test_every_import_is_a_declared_dependency(metadata: Message) -> None:
    """What the package imports, it asks for: nothing works by the luck of someone else's dependency."""
    declared = {canonicalize_name(Requirement(line).name) for line in metadata.get_all("Requires-Dist", [])}
    providers_of = packages_distributions()
    missing = {
        f"{layer_of(module_name(source)) or 'root'}: {name}"
        for source in sources()
        for _, name in imports(source)
        if not _is_declared(name, declared, providers_of)
    }
    assert sorted(missing) == []


def _is_declared(name: str, declared: set[str], providers_of: Mapping[str, list[str]]) -> bool:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names | BROUGHT_BY_AIRFLOW | {"airflow_provider_ai"}:
        return True
    if top == "airflow":
        return _airflow_distribution(name) in declared
    return any(canonicalize_name(found) in declared for found in providers_of.get(top, ()))


def _airflow_distribution(name: str) -> str:
    """`airflow.providers.common.compat.sdk` is in `apache-airflow-providers-common-compat`; the rest is Airflow."""
    if not name.startswith("airflow.providers."):
        return "apache-airflow"
    parts = name.split(".")[2:]
    candidates = [f"apache-airflow-providers-{'-'.join(parts[:length])}" for length in range(len(parts), 0, -1)]
    return next((candidate for candidate in candidates if any(distributions(name=candidate))), name)
