"""The command line, named as tensorflow_model_server's, so that one argv fits either server.

Lives here: flags -> one frozen value. Must not live here: reading the files they name. `--host` is the stand-in's own: it
listens on loopback unless told otherwise, where the real server takes every interface.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Flags:
    """What was asked for; ports 0 switch a listener off (as in TF Serving), -1 takes a free one; 0 threads means automatic."""

    host: str
    port: int
    rest_api_port: int
    model_name: str
    model_base_path: str
    model_config_file: str
    model_config_file_poll_wait_seconds: float
    enable_batching: bool
    batching_parameters_file: str
    monitoring_config_file: str
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    grpc_max_threads: int
    rest_api_timeout_in_ms: int
    rest_api_num_threads: int
    file_system_poll_wait_seconds: float
    saved_model_tags: str
    drain_seconds: float


def parse_flags(argv: Sequence[str]) -> Flags:
    """Parse the flags; exits 2 with usage on an unknown one (argparse)."""
    parser = argparse.ArgumentParser(
        prog="python -m backends.embedded",
        description="Serve SavedModels over TensorFlow Serving's REST and gRPC API: a stand-in for tensorflow_model_server.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8500, help="gRPC port; 0: none; -1: a free one")
    add("--rest_api_port", type=int, default=0, help="REST port; 0: none; -1: a free one")
    add("--model_name", default="default", help="name of the one model (without --model_config_file)")
    add("--model_base_path", default="", help="its base path: a folder of version folders")
    add("--model_config_file", default="", help="ModelServerConfig in protobuf text format; beats the two above")
    add(
        "--model_config_file_poll_wait_seconds", type=float, default=0, help="read that file again this often; 0: never"
    )
    add("--enable_batching", type=_boolean, nargs="?", const=True, default=False, help="batch requests together")
    add("--batching_parameters_file", default="", help="BatchingParameters in protobuf text format")
    add("--monitoring_config_file", default="", help="MonitoringConfig in protobuf text format")
    add("--tensorflow_intra_op_parallelism", type=int, default=0, help="threads within one operator; 0: automatic")
    add("--tensorflow_inter_op_parallelism", type=int, default=0, help="threads across operators; 0: automatic")
    add("--grpc_max_threads", type=int, default=4 * (os.cpu_count() or 1), help="gRPC calls answered at a time")
    add(
        "--rest_api_timeout_in_ms", type=int, default=30000, help="accepted and not enforced, as in the released server"
    )
    add("--rest_api_num_threads", type=int, default=0, help="accepted; the stand-in runs one thread per connection")
    add("--file_system_poll_wait_seconds", type=float, default=1, help="look for versions this often; 0: once")
    add("--saved_model_tags", default="serve", help="tags of the MetaGraph, comma-separated")
    add("--drain_seconds", type=float, default=5, help="longest wait for requests in flight after SIGTERM")
    return Flags(**vars(parser.parse_args(argv)))


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "1"}:
        return True
    if text.lower() in {"false", "0"}:
        return False
    raise argparse.ArgumentTypeError(f"{text!r}: expected true or false")
