"""Which keys a spec file may hold, and of what type. Derived from the settings classes, so the two cannot drift apart.

A key that is not known is always an error: a limit that is misspelled would otherwise not limit anything. Messages
name the table, the key and the type that came, never the value: some values are secrets.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
    StorageOptions,
)
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
)
from airflow_provider_ai.exceptions import SpecError

Table = dict[str, Any]
RequestClass = type[JsonRequest | OpenInferenceRequest | OpenAIChatRequest | OpenAIEmbeddingsRequest]

SETTINGS_OF_TABLE: dict[str, type] = {
    "input": InputSettings,
    "endpoint": EndpointSettings,
    "limits": Limits,
    "checkpoint": CheckpointSettings,
    "sink": SinkSettings,
    "storage": StorageOptions,
}
REQUIRED_TABLES = ("input", "endpoint", "checkpoint", "sink")
CREDENTIALS = ("access_key", "secret_key", "session_token")
REQUEST_CLASSES: dict[str, RequestClass] = {
    "json": JsonRequest,
    "open-inference": OpenInferenceRequest,
    "open-inference-grpc": OpenInferenceRequest,
    "openai-chat": OpenAIChatRequest,
    "openai-embeddings": OpenAIEmbeddingsRequest,
}
# In [input], [limits] and the endpoint's own path; the inputs of a synchronous call are in a file of their own.
_SET_ELSEWHERE = ("columns", "records_per_request", "path", "inputs")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a key takes: its name for people, and whether a TOML value is one."""

    name: str
    holds: Callable[[Any], bool]


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _no_bool(kinds: type | UnionType) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool)


TEXT = _Kind("a string", lambda value: isinstance(value, str))
NAMES = _Kind("a list of strings", lambda value: isinstance(value, list) and _texts(value))
WHOLE = _Kind("an integer", _no_bool(int))
_TABLE_OR_PATH = _Kind("a table or the path of a JSON file", lambda value: isinstance(value, dict | str))
NUMBER = _Kind("a number", _no_bool(int | float))
ANYTHING = _Kind("any value", lambda value: True)
_KIND_OF_HINT: dict[Any, _Kind] = {
    str: TEXT,
    int: WHOLE,
    float: NUMBER,
    bool: _Kind("true or false", lambda value: isinstance(value, bool)),
    tuple[str, ...]: NAMES,
    Sequence[str]: NAMES,
    Mapping[str, str]: _Kind("a table of strings", lambda value: isinstance(value, dict) and _texts(value.values())),
    Mapping[str, Any]: _Kind("a table", lambda value: isinstance(value, dict)),
    Any: _TABLE_OR_PATH,
}


def _kind_of(hint: Any) -> _Kind:
    if get_origin(hint) in (Union, UnionType):
        hint = next(option for option in get_args(hint) if option is not type(None))
    return TEXT if get_origin(hint) is Literal else _KIND_OF_HINT[hint]


def kinds_of(settings: type, *, leave_out: Sequence[str] = ()) -> dict[str, _Kind]:
    """What each field of a settings class takes in a spec file."""
    hints = get_type_hints(settings)
    names = [field.name for field in fields(settings) if field.init and field.name not in leave_out]
    return {name: _kind_of(hints[name]) for name in names}


AUDIT_KEYS = {
    **kinds_of(AuditSettings, leave_out=("hmac_key", "signing_key", "storage")),
    "on": _KIND_OF_HINT[bool],
    "hmac_key_env": TEXT,
    "hmac_key_file": TEXT,
    "signing_key_env": TEXT,
    "signing_key_file": TEXT,
    "public_key_files": NAMES,
}
"""What an ``[audit]`` table takes; its secrets are named, and are elsewhere."""


def request_keys(request: RequestClass) -> set[str]:
    """The keys of ``[endpoint]`` that this class of request takes."""
    return kinds_of(request).keys() - set(_SET_ELSEWHERE)


def endpoint_keys() -> dict[str, _Kind]:
    """The keys of an ``[endpoint]`` table: the endpoint's own and those of every class of request."""
    known = kinds_of(EndpointSettings)
    for request in REQUEST_CLASSES.values():
        kinds = kinds_of(request)
        known |= {name: kinds[name] for name in request_keys(request)}
    known["api_key_env"] = TEXT
    del known["api_key"]
    return known


def _batch_keys() -> dict[str, dict[str, _Kind]]:
    known = {table: kinds_of(settings) for table, settings in SETTINGS_OF_TABLE.items()}
    known["endpoint"] = endpoint_keys()
    known["limits"]["records_per_request"] = WHOLE
    for name in CREDENTIALS:
        del known["storage"][name]
    known["audit"] = AUDIT_KEYS
    return known


@dataclass(frozen=True, slots=True)
class SpecShape:
    """What a kind of spec file may hold.

    :param known: table → its keys and what they take
    :param required: table → the keys that must be in it
    """

    known: Mapping[str, Mapping[str, _Kind]]
    required: Mapping[str, Sequence[str]]

    def check(self, document: Mapping[str, Any]) -> dict[str, Table]:
        """The tables of a spec by name, absent optional ones empty; SpecError for the first thing that is wrong."""
        for name, table in document.items():
            if name not in self.known:
                raise SpecError(self._unknown_table(name, table))
            if not isinstance(table, dict):
                raise SpecError(f"[{name}] must be a table, got {_type_name(table)}")
            self.check_table(name, table)
        tables = {name: document.get(name, {}) for name in self.known}
        for name, keys in self.required.items():
            for key in keys:
                require_key(tables, name, key)
        return tables

    def check_table(self, name: str, table: Table) -> None:
        """SpecError for a key that is not known or takes something else."""
        for key, value in table.items():
            kind = self.known[name].get(key)
            if kind is None:
                raise SpecError(self._unknown_key(name, key))
            if not kind.holds(value):
                raise SpecError(f"{key!r} in [{name}] must be {kind.name}, got {_type_name(value)}")

    def _unknown_key(self, table: str, key: str) -> str:
        if table in ("storage", "transport") and key in CREDENTIALS:
            return f"{key!r} must not be in [{table}]: credentials come from the environment (AWS_ACCESS_KEY_ID, …)"
        home = next((name for name, known in self.known.items() if key in known), None)
        if home is not None:
            return f"unknown key {key!r} in [{table}]; did you mean {key!r} in [{home}]?"
        return f"unknown key {key!r} in [{table}]; did you mean {nearest(key, self.known[table])!r}?"

    def _unknown_table(self, name: str, value: object) -> str:
        if isinstance(value, dict | list):
            return f"unknown table [{name}]; did you mean [{nearest(name, self.known)}]?"
        homes = {key: table for table, known in self.known.items() for key in known}
        found = nearest(name, homes)
        return f"unknown key {name!r} outside of the tables; did you mean {found!r} in [{homes[found]}]?"


def require_key(tables: Mapping[str, Table], table: str, key: str, why: str = "") -> None:
    """SpecError unless ``key`` is in ``[table]``."""
    if key not in tables[table]:
        raise SpecError(f"missing key {key!r} in [{table}]{why}")


def required_keys(settings: type) -> list[str]:
    """The fields of a settings class that have no default."""
    return [field.name for field in fields(settings) if field.default is MISSING and field.default_factory is MISSING]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like ``word``."""
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]


def _type_name(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
    containers = {list: "a list of something else", dict: "a table"}
    return (names | containers).get(type(value), "a date or time")


BATCH = SpecShape(_batch_keys(), {table: required_keys(SETTINGS_OF_TABLE[table]) for table in REQUIRED_TABLES})
