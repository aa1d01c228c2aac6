"""The text files TF Serving reads: model config list, batching parameters, monitoring config.

Lives here: protobuf text format -> frozen values, with the file's name in every error. Must not live here: flags, loading.
Two of the messages are not in the tensorflow-serving-api package; their descriptors are built here (text format needs the
field names only: session_bundle_config.proto and monitoring_config.proto of TF Serving 2.19.1).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from backends.embedded.batch_graph import BatchingParameters

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
_FIELD = descriptor_pb2.FieldDescriptorProto


class ConfigError(ValueError):
    """A flag or a configuration file that cannot be used; the text says which and what would be right."""


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve: `latest` newest versions, or `every` version, or exactly `specific`; `labels` name versions."""

    name: str
    base_path: str
    latest: int = 1
    every: bool = False
    specific: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)


def read_model_configs(path: str) -> tuple[ModelConfig, ...]:
    """Read a ModelServerConfig text file; raises ConfigError."""
    from tensorflow_serving.config import model_server_config_pb2

    config = _parse(path, model_server_config_pb2.ModelServerConfig())
    if config.WhichOneof("config") != "model_config_list":
        raise ConfigError(f"{path}: expected a model_config_list")
    models = tuple(_model(path, entry) for entry in config.model_config_list.config)
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: model {name!r} is listed twice")
    return models


def _model(path: str, entry: Any) -> ModelConfig:
    if not entry.name or not entry.base_path:
        raise ConfigError(f"{path}: every config needs a name and a base_path")
    if entry.model_platform not in ("", "tensorflow"):
        raise ConfigError(
            f"{path}: model {entry.name!r}: model_platform {entry.model_platform!r}: expected 'tensorflow'"
        )
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific" and not policy.specific.versions:
        raise ConfigError(f"{path}: model {entry.name!r}: model_version_policy specific names no versions")
    return ModelConfig(
        name=entry.name,
        base_path=entry.base_path,
        latest=policy.latest.num_versions or 1,
        every=choice == "all",
        specific=tuple(policy.specific.versions) if choice == "specific" else (),
        labels=dict(entry.version_labels),
    )


def read_batching_parameters(path: str) -> BatchingParameters:
    """Read a BatchingParameters text file; raises ConfigError, also for what the in-graph batcher cannot do."""
    message = _parse(path, _message("BatchingParameters"))
    if message.pad_variable_length_inputs:
        raise ConfigError(
            f"{path}: pad_variable_length_inputs: the stand-in cannot pad rows to one length; leave it out"
        )
    default = BatchingParameters()
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads", "thread_pool_name")
    given = {name: getattr(message, name).value for name in names if message.HasField(name)}
    limits: dict[str, Any] = {**{name: getattr(default, name) for name in names}, **given}
    if limits["max_batch_size"] < 1 or limits["max_enqueued_batches"] < 1 or limits["batch_timeout_micros"] < 0:
        raise ConfigError(
            f"{path}: max_batch_size and max_enqueued_batches must be positive, batch_timeout_micros not negative"
        )
    splitting = message.enable_large_batch_splitting.value
    executed = message.max_execution_batch_size.value if splitting else 0
    allowed = tuple(message.allowed_batch_sizes)
    if list(allowed) != sorted(set(allowed)) or any(size < 1 for size in allowed):
        raise ConfigError(f"{path}: allowed_batch_sizes must rise: {list(allowed)}")
    largest = executed or limits["max_batch_size"]
    if allowed and allowed[-1] != largest:
        raise ConfigError(
            f"{path}: the last of allowed_batch_sizes is {allowed[-1]}, expected {largest}, the largest batch run"
        )
    limits["num_batch_threads"] = limits["num_batch_threads"] or os.cpu_count() or 1
    return BatchingParameters(
        **limits,
        # the in-graph batcher splits only with allowed sizes; with every size allowed it pads nothing
        allowed_batch_sizes=allowed or tuple(range(1, executed + 1)),
        enable_large_batch_splitting=splitting,
        max_execution_batch_size=executed,
    )


def read_metrics_path(path: str) -> str | None:
    """Read a MonitoringConfig text file: the Prometheus path, None when it is not enabled. Raises ConfigError."""
    prometheus = _parse(path, _message("MonitoringConfig")).prometheus_config
    return (prometheus.path or DEFAULT_METRICS_PATH) if prometheus.enable else None


def _parse(path: str, message: Any) -> Any:
    try:
        return text_format.Parse(Path(path).read_text(), message)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a {message.DESCRIPTOR.name} in protobuf text format: {error}") from None


def _message(name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_descriptors())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"abgate.{name}"))()


def _descriptors() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="abgate/tfserving_config.proto", package="abgate", syntax="proto3")
    for kind, number in (
        ("Int64Value", _FIELD.TYPE_INT64),
        ("StringValue", _FIELD.TYPE_STRING),
        ("BoolValue", _FIELD.TYPE_BOOL),
    ):
        _add_fields(file.message_type.add(name=kind), [("value", number, None)])
    wrapped = [
        ("max_batch_size", "Int64Value"),
        ("batch_timeout_micros", "Int64Value"),
        ("max_enqueued_batches", "Int64Value"),
        ("num_batch_threads", "Int64Value"),
        ("thread_pool_name", "StringValue"),
        ("enable_large_batch_splitting", "BoolValue"),
        ("max_execution_batch_size", "Int64Value"),
    ]
    batching = file.message_type.add(name="BatchingParameters")
    _add_fields(batching, [(name, _FIELD.TYPE_MESSAGE, kind) for name, kind in wrapped])
    sizes = batching.field.add(
        name="allowed_batch_sizes", number=20, type=_FIELD.TYPE_INT64, label=_FIELD.LABEL_REPEATED
    )
    sizes.json_name = "allowedBatchSizes"
    batching.field.add(name="pad_variable_length_inputs", number=21, type=_FIELD.TYPE_BOOL, label=_FIELD.LABEL_OPTIONAL)
    prometheus = file.message_type.add(name="PrometheusConfig")
    _add_fields(prometheus, [("enable", _FIELD.TYPE_BOOL, None), ("path", _FIELD.TYPE_STRING, None)])
    _add_fields(
        file.message_type.add(name="MonitoringConfig"), [("prometheus_config", _FIELD.TYPE_MESSAGE, "PrometheusConfig")]
    )
    return file


def _add_fields(message: Any, fields: list[tuple[str, Any, str | None]]) -> None:
    for number, (name, kind, target) in enumerate(fields, start=1):
        added = message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
        if target:
            added.type_name = f".abgate.{target}"
