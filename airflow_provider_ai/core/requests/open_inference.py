"""Protocols ``open-inference`` and ``open-inference-grpc``: tensors over the Open Inference Protocol, version 2.

Written and read as its REST form, JSON; the endpoint for gRPC translates.

Specification: https://github.com/kserve/open-inference-protocol. Two layouts: ``matrix`` sends one tensor [n, k] that
holds k columns of n records row by row (what scikit-learn and XGBoost runtimes take); ``columns`` sends one tensor
[n, 1] per column, named after it. A tensor has no nulls, so a record with one, or with NaN, cannot be sent.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from typing import Any, ClassVar, Literal, TypeGuard
from urllib.parse import quote
from uuid import UUID

from airflow_provider_ai.core.config import Protocol, require
from airflow_provider_ai.core.ports import Decoded, EncodedRequest, InvalidAnswerError, UnrenderableRecordError
from airflow_provider_ai.core.requests import reasons, settings, values

Layout = Literal["matrix", "columns"]
LAYOUTS: tuple[Layout, ...] = ("matrix", "columns")
_WHOLE = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
_REAL = ("FP16", "BF16", "FP32", "FP64")
DATATYPES = ("BOOL", "BYTES", *_WHOLE, *_REAL)

_FITTING: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
    **dict.fromkeys(_WHOLE, frozenset({int})),
    **dict.fromkeys(_REAL, frozenset({float, int})),
}
_TENSOR_TYPES = {bool, int, float, str}
_MAX_RANK = 8
_Tensor = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInferenceRequest:
    """Tensors in, tensors out. A scalar output becomes a scalar column, a vector output a list.

    :param columns: input columns, in the order the model was trained on; ``None``, which a batch refuses, for the
        fields of the records in the order of the first
    :param records_per_request: most records in one call (n)
    :param layout: ``matrix`` or ``columns``, see the module
    :param input_name: name of the tensor in the ``matrix`` layout; ``None`` for ``predict``
    :param datatype: of all input tensors, such as ``FP32``; ``None`` tells it from the Python types
    :param output_names: outputs to ask for and to keep; ``None`` for all (MLServer: ``["predict_proba"]``)
    :param parameters: of the request, such as ``{"content_type": "pd"}`` for MLServer's pandas codec
    :param path: below the endpoint's URL; ``{model}`` stands for the model's name
    :param inputs: record, or records, of a synchronous call (Airflow: templated); no part of a batch
    """

    columns: Sequence[str] | None = None
    records_per_request: int = 64
    layout: Layout = "matrix"
    input_name: str | None = None
    datatype: str | None = None
    output_names: Sequence[str] | None = None
    parameters: Mapping[str, Any] | None = None
    path: str = "/v2/models/{model}/infer"
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)

    protocol: ClassVar[Protocol] = "open-inference"

    def __post_init__(self) -> None:
        if self.columns is not None:
            object.__setattr__(self, "columns", settings.names("columns", self.columns))
        if self.output_names is not None:
            object.__setattr__(self, "output_names", settings.names("output_names", self.output_names))
        settings.require_count("records_per_request", self.records_per_request)
        settings.require_path(self.path)
        settings.require_output_columns(self.output_columns)
        require(self.layout in LAYOUTS, f"layout must be one of {LAYOUTS}", self.layout)
        require(self.datatype in (None, *DATATYPES), f"datatype must be one of {DATATYPES}", self.datatype)
        is_name = isinstance(self.input_name, str) and bool(self.input_name)
        require(self.input_name is None or is_name, "input_name must be a name", self.input_name)
        unnamed = self.layout == "matrix" or self.input_name is None
        require(
            unnamed, "input_name must be absent when layout is 'columns' (tensors bear column names)", self.input_name
        )
        settings.require_parameters(self.parameters)

    @property
    def output_columns(self) -> tuple[str, ...]:
        """Output columns known beforehand; without ``output_names`` the answers decide."""
        return tuple(self.output_names or ())

    def identity(self) -> dict[str, Any]:
        """What decides the question that is asked; see :class:`airflow_provider_ai.core.ports.Request`."""
        return {
            "protocol": self.protocol,
            "path": self.path,
            "columns": None if self.columns is None else list(self.columns),
            "layout": self.layout,
            "input_name": self.input_name,
            "datatype": self.datatype,
            "output_names": None if self.output_names is None else list(self.output_names),
            "parameters": values.normalized(self.parameters),
        }

    def encode(self, model: str, ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> EncodedRequest:
        """One call for these records. UnrenderableRecordError when one of them cannot be sent."""
        names = _fields(records) if self.columns is None else self.columns
        rows = _rows(names, records)
        request: dict[str, Any] = {
            "inputs": self._matrix(names, rows) if self.layout == "matrix" else self._tensors(names, rows)
        }
        if self.output_names is not None:
            request["outputs"] = [{"name": name} for name in self.output_names]
        if self.parameters:
            request["parameters"] = self.parameters
        body = values.to_json(request)
        path = self.path.replace("{model}", quote(model, safe=""))
        return EncodedRequest(path=path, body=body, estimated_tokens=values.estimate_tokens(body))

    def _matrix(self, names: Sequence[str], rows: list[tuple[Any, ...]]) -> list[_Tensor]:
        shape = [len(rows), len(names)]
        return [_tensor(self.input_name or "predict", shape, list(chain.from_iterable(rows)), self.datatype)]

    def _tensors(self, names: Sequence[str], rows: list[tuple[Any, ...]]) -> list[_Tensor]:
        shape = [len(rows), 1]
        columns = zip(names, zip(*rows, strict=True), strict=True)
        return [_tensor(name, shape, column, self.datatype) for name, column in columns]

    def decode(self, body: bytes, ids: Sequence[Any]) -> Decoded:
        """Outputs in the order of ``ids``. InvalidAnswerError when the body is no answer at all."""
        tensors = _by_name(values.list_of(values.parse_object(body), "outputs"))
        if self.output_names is not None:
            if not all(name in tensors for name in self.output_names):
                raise InvalidAnswerError(reasons.MISSING_OUTPUT)
            tensors = {name: tensors[name] for name in self.output_names}
        nul = values.may_hold_nul(body)
        columns = [_column(tensor, len(ids), nul) for tensor in tensors.values()]
        if not all(name and name[0] != "_" for name in tensors):
            return Decoded(outputs=[reasons.RESERVED_COLUMN] * len(ids))
        names = tuple(tensors)
        return Decoded(outputs=[_output(names, row) for row in zip(*columns, strict=True)])


def _output(names: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any] | str:
    for value in row:
        if type(value) is _Unfit:
            return value.reason
    return dict(zip(names, row, strict=True))


# --- sending


def _fields(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The fields that all records have; UnrenderableRecordError when they have not the same ones, or none."""
    first = records[0].keys()
    if not first:
        raise UnrenderableRecordError(reasons.EMPTY_INPUTS)
    if any(record.keys() != first for record in records):
        raise UnrenderableRecordError(reasons.UNEQUAL_FIELDS)
    return tuple(first)


def _rows(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    try:
        if len(columns) == 1:
            return [(record[columns[0]],) for record in records]
        return [*map(itemgetter(*columns), records)]
    except KeyError:
        raise UnrenderableRecordError(reasons.MISSING_FIELD) from None


def _tensor(name: str, shape: list[int], data: Sequence[Any], datatype: str | None) -> _Tensor:
    kinds = {*map(type, data)}
    if not kinds <= _TENSOR_TYPES:
        data = [_element(value) for value in data]
        kinds = {*map(type, data)}
    datatype = datatype or _datatype(kinds)
    return {"name": name, "shape": shape, "datatype": datatype, "data": _fitted(data, kinds, datatype)}


def _datatype(kinds: set[type]) -> str:
    if kinds == {str}:
        return "BYTES"
    if kinds == {bool}:
        return "BOOL"
    if str in kinds:
        raise UnrenderableRecordError(reasons.WRONG_TYPE)
    return "FP64" if float in kinds else "INT64"


def _fitted(data: Sequence[Any], kinds: set[type], datatype: str) -> Sequence[Any]:
    if datatype in _REAL and str not in kinds:
        return _finite(data if kinds == {float} else _floats(data))
    if datatype in _WHOLE and kinds <= {int, bool}:
        return data if kinds == {int} else [int(value) for value in data]
    if kinds <= _FITTING[datatype]:
        return data
    raise UnrenderableRecordError(reasons.WRONG_TYPE)


def _floats(data: Sequence[Any]) -> list[float]:
    try:
        return [float(value) for value in data]
    except OverflowError:
        raise UnrenderableRecordError(reasons.NOT_FINITE) from None


def _finite(data: Sequence[float]) -> Sequence[float]:
    # The sum is finite only if every term is; it may also overflow, so a closer look decides.
    if not math.isfinite(sum(data)) and not all(map(math.isfinite, data)):
        raise UnrenderableRecordError(reasons.NOT_FINITE)
    return data


def _element(value: Any) -> bool | int | float | str:
    if type(value) in _TENSOR_TYPES:
        return value  # type: ignore[no-any-return]
    if value is None:
        raise UnrenderableRecordError(reasons.NULL_VALUE)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, date | time) and value == value:
        return value.isoformat()
    if isinstance(value, UUID | str):
        return str(value)
    if hasattr(value, "tolist") and type(plain := value.tolist()) in _TENSOR_TYPES:  # NumPy scalars
        return plain  # type: ignore[no-any-return]
    raise UnrenderableRecordError(reasons.WRONG_TYPE)


# --- receiving


@dataclass(frozen=True, slots=True)
class _Unfit:
    """In place of one element that is not what its tensor says."""

    reason: str


def _by_name(outputs: list[Any]) -> dict[str, _Tensor]:
    tensors: dict[str, _Tensor] = {}
    for tensor in outputs:
        name = tensor.get("name") if type(tensor) is dict else None
        if type(name) is not str:
            raise InvalidAnswerError(reasons.NO_OUTPUTS)
        if name in tensors:
            raise InvalidAnswerError(reasons.DUPLICATE_OUTPUT)
        tensors[name] = tensor
    if not tensors:
        raise InvalidAnswerError(reasons.NO_OUTPUTS)
    return tensors


def _column(tensor: _Tensor, records: int, nul: bool) -> list[Any]:
    """One value per record: a scalar for the shapes [n] and [n, 1], else nested lists."""
    shape, fitting = tensor.get("shape"), _fitting(tensor.get("datatype"))
    if not _is_shape(shape) or shape[0] != records:
        raise InvalidAnswerError(reasons.WRONG_SHAPE)
    data = _flat(tensor.get("data"), shape)
    sound = _all_fit(data, fitting, nul)
    if not sound:
        data = [_fit(value, fitting) for value in data]
    if shape[1:] in ([], [1]):
        return data
    for size in reversed(shape[1:]):
        data = [data[start : start + size] for start in range(0, len(data), size)]
        if not sound:
            data = [_joined(part) for part in data]
    return data


def _joined(part: list[Any]) -> list[Any] | _Unfit:
    return next((value for value in part if type(value) is _Unfit), part)


def _fitting(datatype: object) -> frozenset[type]:
    fitting = _FITTING.get(datatype) if isinstance(datatype, str) else None
    if fitting is None:
        raise InvalidAnswerError(reasons.WRONG_TYPE)
    return fitting


def _is_shape(shape: object) -> TypeGuard[list[int]]:
    if type(shape) is not list or not 1 <= len(shape) <= _MAX_RANK:
        return False
    return all(values.is_int(size) and size >= 1 for size in shape)


def _flat(data: Any, shape: list[int]) -> list[Any]:
    """The elements row by row; servers may nest them as the shape says."""
    if type(data) is not list:
        raise InvalidAnswerError(reasons.NO_OUTPUTS)
    flat: list[Any] = data
    for _ in shape[1:]:
        if {*map(type, flat)} != {list}:
            break
        flat = list(chain.from_iterable(flat))
    if len(flat) != math.prod(shape):
        raise InvalidAnswerError(reasons.WRONG_SHAPE)
    return flat


def _all_fit(data: list[Any], fitting: frozenset[type], nul: bool) -> bool:
    kinds = {*map(type, data)}
    if float in fitting:
        return kinds == {float}
    if int in fitting:
        return kinds == {int} and values.fits_bigint(min(data)) and values.fits_bigint(max(data))
    return kinds <= fitting and not nul


def _fit(value: Any, fitting: frozenset[type]) -> Any:
    kind = type(value)
    if kind not in fitting:
        return _Unfit(reasons.NULL_VALUE if value is None else reasons.WRONG_TYPE)
    if float in fitting:
        return float(value)
    if kind is int and not values.fits_bigint(value):
        return _Unfit(reasons.NUMBER_TOO_LARGE)
    return _Unfit(reasons.NUL_CHARACTER) if kind is str and "\0" in value else value
