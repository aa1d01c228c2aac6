"""The few protobuf messages the fake speaks, in a private pool made of a table: no TensorFlow, no generated code.

Field names and numbers are those of tensorflow_serving/apis/{predict,model,get_model_status}.proto, of
tensorflow/core/framework/{tensor,tensor_shape}.proto and of TorchServe's inference.proto; fields the fake ignores are absent.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
    "float": Field.TYPE_FLOAT,
    "double": Field.TYPE_DOUBLE,
    "bool": Field.TYPE_BOOL,
}
# message -> (name, number, type); "*" repeated, "{}" a map from string; a type that is no scalar is a message of this table
TABLE: dict[str, list[tuple[str, int, str]]] = {
    "Int64Value": [("value", 1, "int64")],
    "Dim": [("size", 1, "int64")],
    "TensorShapeProto": [("dim", 2, "*Dim")],
    "TensorProto": [
        ("dtype", 1, "int32"),
        ("tensor_shape", 2, "TensorShapeProto"),
        ("tensor_content", 4, "bytes"),
        ("float_val", 5, "*float"),
        ("double_val", 6, "*double"),
        ("int_val", 7, "*int32"),
        ("int64_val", 10, "*int64"),
        ("bool_val", 11, "*bool"),
    ],
    "ModelSpec": [("name", 1, "string"), ("version", 2, "Int64Value"), ("signature_name", 3, "string")],
    "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "{}TensorProto")],
    "PredictResponse": [("outputs", 1, "{}TensorProto"), ("model_spec", 2, "ModelSpec")],
    "GetModelStatusRequest": [("model_spec", 1, "ModelSpec")],
    "ModelVersionStatus": [("version", 1, "int64"), ("state", 2, "int32")],
    "GetModelStatusResponse": [("model_version_status", 1, "*ModelVersionStatus")],
    "PredictionsRequest": [("model_name", 1, "string"), ("model_version", 2, "string"), ("input", 3, "{}bytes")],
    "PredictionResponse": [("prediction", 1, "bytes")],
    "TorchServeHealthResponse": [("health", 1, "string")],
}


@cache
def message(name: str) -> Any:
    """The class of a message of the table."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"fake.{name}"))


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """The private pool with every message of the table."""
    file = descriptor_pb2.FileDescriptorProto(name="fake.proto", package="fake", syntax="proto3")
    for name, fields in TABLE.items():
        described = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            add_field(described, name, field_name, number, kind)
    made = descriptor_pool.DescriptorPool()
    made.AddSerializedFile(file.SerializeToString())
    return made


def add_field(described: descriptor_pb2.DescriptorProto, owner: str, name: str, number: int, kind: str) -> None:
    """Describe one field; a map is a repeated entry message, as protoc makes it."""
    base = kind.lstrip("*{}")
    if kind.startswith("{}"):
        entry = described.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        add_field(entry, owner, "key", 1, "string")
        add_field(entry, owner, "value", 2, base)
        base = f"{owner}.{entry.name}"
    label = Field.LABEL_OPTIONAL if kind == base else Field.LABEL_REPEATED
    if base in SCALARS:
        described.field.add(name=name, number=number, label=label, type=SCALARS[base])
    else:
        described.field.add(name=name, number=number, label=label, type=Field.TYPE_MESSAGE, type_name=f".fake.{base}")
