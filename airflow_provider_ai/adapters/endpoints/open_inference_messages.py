"""The messages of the Open Inference Protocol over gRPC, built from a table of their field numbers.

The numbers are facts of the protocol (https://github.com/kserve/open-inference-protocol); generated code would tie the
package to one range of protobuf versions. The types live in a pool of their own, so they never meet those of another
client in the process. Nested and map types have other names here: on the wire a type has none, and a map is a list of
entries. Needs protobuf: import it where it is used.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "/inference.GRPCInferenceService"

_PACKAGE = "airflow_provider_ai.open_inference"
_TENSOR = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "repeated int64")}
_PARAMETERS = "repeated ParameterEntry"
# Message → field → number and type. In a choice one field is set, and is sent even when it is 0, false or empty.
_MESSAGES = {
    "ModelReadyRequest": {"name": (1, "string"), "version": (2, "string")},
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "parameters": (4, _PARAMETERS),
        "inputs": (5, "repeated InputTensor"),
        "outputs": (6, "repeated RequestedOutput"),
        "raw_input_contents": (7, "repeated bytes"),
    },
    "InputTensor": {**_TENSOR, "parameters": (4, _PARAMETERS), "contents": (5, "Contents")},
    "RequestedOutput": {"name": (1, "string"), "parameters": (2, _PARAMETERS)},
    "ModelInferResponse": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "outputs": (5, "repeated OutputTensor"),
        "raw_output_contents": (6, "repeated bytes"),
    },
    "OutputTensor": {**_TENSOR, "contents": (5, "Contents")},
    "Contents": {
        "bool_contents": (1, "repeated bool"),
        "int_contents": (2, "repeated int32"),
        "int64_contents": (3, "repeated int64"),
        "uint_contents": (4, "repeated uint32"),
        "uint64_contents": (5, "repeated uint64"),
        "fp32_contents": (6, "repeated float"),
        "fp64_contents": (7, "repeated double"),
        "bytes_contents": (8, "repeated bytes"),
    },
    "ParameterEntry": {"key": (1, "string"), "value": (2, "Parameter")},
    "Parameter": {
        "bool_param": (1, "choice bool"),
        "int64_param": (2, "choice int64"),
        "string_param": (3, "choice string"),
        "double_param": (4, "choice double"),
    },
    # google.rpc.Status as a trailer, and what of it says when to come back.
    "Status": {"details": (3, "repeated Any")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "RetryInfo": {"retry_delay": (1, "Duration")},
    "Duration": {"seconds": (1, "int64"), "nanos": (2, "int32")},
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label, _, type_name = kind.rpartition(" ")
            _describe(message.field.add(name=field, number=number), label, type_name)
            if label == "choice" and not message.oneof_decl:
                message.oneof_decl.add(name="choice")
    return file


def _describe(field: descriptor_pb2.FieldDescriptorProto, label: str, type_name: str) -> None:
    field.label = field.LABEL_REPEATED if label == "repeated" else field.LABEL_OPTIONAL
    if type_name in _MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{type_name}"
    else:
        field.type = getattr(field, f"TYPE_{type_name.upper()}")
    if label == "choice":
        field.oneof_index = 0


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_described())


def _class_of(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


ModelReadyRequest = _class_of("ModelReadyRequest")
ModelReadyResponse = _class_of("ModelReadyResponse")
ModelInferRequest = _class_of("ModelInferRequest")
ModelInferResponse = _class_of("ModelInferResponse")
Status = _class_of("Status")
RetryInfo = _class_of("RetryInfo")
