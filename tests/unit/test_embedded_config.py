"""The stand-in's files, flags, versions and metrics: everything that needs no TensorFlow session."""

import sys

import pytest

from backends.embedded.batch_graph import BatchingParameters
from backends.embedded.catalog import MAX_LOAD_RETRIES, Catalog, Wanted, wanted_versions
from backends.embedded.config_files import ConfigError, ModelConfig, read_batching_parameters, read_metrics_path
from backends.embedded.errors import Code, ServingError
from backends.embedded.flags import parse_flags
from backends.embedded.metrics import LATENCY_BOUNDS, QUEUE_BOUNDS, SIZE_BOUNDS, Histogram, ServingMetrics
from backends.spec import BackendSpec, Batching, ServedModel
from backends.tfserving import plan
from backends.tfserving.command import BINARY


class Loaded:
    """What the catalog hands out in place of a SavedModel."""

    def __init__(self, name, version, directory):
        self.name, self.version, self.directory = name, version, directory


def make_versions(base, *names):
    for name in names:
        (base / name).mkdir(parents=True)
        (base / name / "saved_model.pb").write_bytes(b"x")


def refused(call):
    with pytest.raises(ServingError) as error:
        call()
    return error.value.code, error.value.message


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, [10]),
        ({"latest": 2}, [9, 10]),
        ({"every": True}, [1, 9, 10]),
        ({"specific": (1, 7)}, [1]),
    ],
)
def test_version_policies(tmp_path, policy, expected):
    make_versions(tmp_path, "1", "9", "10", "draft", "-3")
    (tmp_path / "11").write_text("a file is no version")
    assert sorted(wanted_versions(ModelConfig("m", str(tmp_path), **policy))) == expected


def test_a_catalog_follows_the_disk(tmp_path):
    make_versions(tmp_path, "1")
    catalog = Catalog((ModelConfig("m", str(tmp_path), labels={"stable": 1, "next": 2}),), Loaded)
    assert refused(lambda: catalog.resolve(Wanted("m"))) == (
        Code.NOT_FOUND,
        "Servable not found for request: Latest(m)",
    )
    catalog.refresh()
    assert catalog.resolve(Wanted("m")).version == 1
    assert catalog.resolve(Wanted("m", label="stable")).version == 1
    assert refused(lambda: catalog.resolve(Wanted("m", label="next"))) == (
        Code.INVALID_ARGUMENT,
        "Unrecognized servable version label: next",
    )
    make_versions(tmp_path, "2")
    catalog.refresh()
    assert catalog.resolve(Wanted("m")).version == 2
    assert catalog.resolve(Wanted("m", label="next")).version == 2
    assert refused(lambda: catalog.resolve(Wanted("m", 1)))[1] == "Servable not found for request: Specific(m, 1)"
    assert [(s.version, s.state) for s in catalog.statuses("m")] == [(2, "AVAILABLE"), (1, "END")]
    catalog.configure(())
    catalog.refresh()
    assert refused(lambda: catalog.resolve(Wanted("m")))[0] is Code.NOT_FOUND


def test_a_version_that_fails_to_load_leaves_the_old_one_in_place(tmp_path):
    make_versions(tmp_path, "1")
    attempts = []

    def load(name, version, directory):
        if version == 2:
            attempts.append(directory)
            raise OSError("half copied")
        return Loaded(name, version, directory)

    catalog = Catalog((ModelConfig("m", str(tmp_path)),), load)
    catalog.refresh()
    make_versions(tmp_path, "2")
    for _ in range(10):
        catalog.refresh()
    assert catalog.resolve(Wanted("m")).version == 1
    newest = catalog.statuses("m")[0]
    assert (newest.version, newest.state, newest.code, newest.message) == (
        2,
        "END",
        Code.UNKNOWN,
        "OSError: half copied",
    )
    assert len(attempts) == MAX_LOAD_RETRIES + 1


def test_versions_that_vanish_are_unloaded(tmp_path):
    make_versions(tmp_path / "base", "1")
    catalog = Catalog((ModelConfig("m", str(tmp_path / "base")),), Loaded)
    catalog.refresh()
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    catalog.refresh()
    assert refused(lambda: catalog.resolve(Wanted("m")))[0] is Code.NOT_FOUND
    assert [s.state for s in catalog.statuses("m")] == ["END"]


def test_status_of_what_is_not_there():
    catalog = Catalog((), Loaded)
    assert refused(lambda: catalog.statuses("foo")) == (Code.NOT_FOUND, "Could not find any versions of model foo")
    assert refused(lambda: catalog.statuses("foo", 7)) == (Code.NOT_FOUND, "Could not find version 7 of model foo")


def test_batching_parameters_are_read(tmp_path):
    path = tmp_path / "batching"
    path.write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 2000 } max_enqueued_batches { value: 7 }\n"
        "num_batch_threads { value: 3 } allowed_batch_sizes: 8 allowed_batch_sizes: 32\n"
    )
    assert read_batching_parameters(str(path)) == BatchingParameters(32, 2000, 7, 3, (8, 32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 3", "not a BatchingParameters in protobuf text format"),
        ("no_such_field { value: 1 }", "no_such_field"),
        ("max_batch_size { value: 0 }", "must be positive"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "last of allowed_batch_sizes is 4, expected 8"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 8 allowed_batch_sizes: 4", "must rise"),
        ("pad_variable_length_inputs: true", "cannot pad"),
    ],
)
def test_batching_parameters_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "batching"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_batching_parameters(str(path))
    assert str(path) in str(error.value)


def test_monitoring_config(tmp_path):
    path = tmp_path / "monitoring"
    path.write_text('prometheus_config { enable: true path: "/m" }')
    assert read_metrics_path(str(path)) == "/m"
    path.write_text("prometheus_config { enable: true }")
    assert read_metrics_path(str(path)) == "/monitoring/prometheus/metrics"
    path.write_text("")
    assert read_metrics_path(str(path)) is None
    with pytest.raises(ConfigError, match="cannot be read"):
        read_metrics_path(str(tmp_path / "missing"))


def test_flags_are_the_real_servers():
    flags = parse_flags(["--port=1", "--rest_api_port", "2", "--enable_batching", "--grpc_max_threads=9"])
    assert (flags.host, flags.port, flags.rest_api_port, flags.enable_batching) == ("127.0.0.1", 1, 2, True)
    assert parse_flags(["--enable_batching=false"]).enable_batching is False
    with pytest.raises(SystemExit):
        parse_flags(["--no_such_flag=1"])


def test_histograms_are_cumulative_and_keep_their_sum():
    histogram = Histogram(":a:b", ("pool",), (1.0, 2.0, 4.0))
    for value in (1, 2, 3, 9):
        histogram.record(value, 'p"q')
    assert histogram.lines() == [
        ':a:b_bucket{pool="p\\"q",le="1"} 0',  # TensorFlow counts a value equal to a bound above it
        ':a:b_bucket{pool="p\\"q",le="2"} 1',
        ':a:b_bucket{pool="p\\"q",le="4"} 3',
        ':a:b_bucket{pool="p\\"q",le="+Inf"} 4',
        ':a:b_sum{pool="p\\"q"} 15',
        ':a:b_count{pool="p\\"q"} 4',
    ]


def test_metric_names_and_buckets_are_tf_servings():
    metrics = ServingMetrics()
    metrics.requests.add("m", "OK")
    metrics.batch_rows.record(4)
    text = metrics.text()
    assert (
        '# TYPE :tensorflow:serving:request_count counter\n:tensorflow:serving:request_count{model_name="m",status="OK"} 1'
        in text
    )
    assert ":tensorflow:serving:batching_session:processed_batch_size_sum{} 4\n" in text
    assert (len(LATENCY_BOUNDS), len(QUEUE_BOUNDS), len(SIZE_BOUNDS)) == (33, 52, 14)
    assert (LATENCY_BOUNDS[0], QUEUE_BOUNDS[1], SIZE_BOUNDS[:4]) == (10, 120, (1, 2, 4, 8))


def spec(tmp_path, **changes):
    models = (ServedModel("m", str(tmp_path / "m")),)
    values = {"name": "tf", "kind": "tensorflow_serving", "http": "127.0.0.1:8501", "grpc": "127.0.0.1:8500"}
    values |= {"management": None, "metrics": None, "models": models, "run_dir": str(tmp_path / "run")}
    return BackendSpec(**(values | changes))


def fake_binary(folder):
    folder.mkdir()
    path = folder / BINARY
    path.write_text("#!/bin/sh\necho 'TensorFlow ModelServer: 2.19.1-rc0'\necho 'TensorFlow Library: 2.19.1'\n")
    path.chmod(0o755)
    return path


def test_the_real_server_is_preferred_and_both_get_the_same_flags(tmp_path, monkeypatch):
    make_versions(tmp_path / "m", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    stand_in = plan(spec(tmp_path, threads=2, workers=3, batching=Batching(8, 1.5)))
    assert stand_in.stand_in
    assert stand_in.implementation.startswith("abgate embedded stand-in (TensorFlow 2.")
    assert stand_in.argv[:4] == (sys.executable, "-m", "backends.embedded", "--host=127.0.0.1")
    real = plan(
        spec(tmp_path, threads=2, workers=3, batching=Batching(8, 1.5), binary=str(fake_binary(tmp_path / "bin")))
    )
    assert not real.stand_in
    assert real.implementation == "TensorFlow Serving 2.19.1-rc0"
    assert real.argv[1:] == stand_in.argv[4:]
    assert "--tensorflow_intra_op_parallelism=6" in real.argv
    assert "--tensorflow_inter_op_parallelism=3" in real.argv
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert not plan(spec(tmp_path)).stand_in


def test_the_written_files_are_what_the_stand_in_reads(tmp_path, monkeypatch):
    make_versions(tmp_path / "m", "1", "2")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    models = (ServedModel("m", str(tmp_path / "m"), "1"),)
    command = plan(spec(tmp_path, models=models, workers=2, batching=Batching(8, 1.5), job_queue=20))
    flags = parse_flags(command.argv[3:])
    assert flags.enable_batching
    assert (flags.port, flags.rest_api_port, flags.tensorflow_intra_op_parallelism) == (8500, 8501, 1)
    assert read_batching_parameters(flags.batching_parameters_file) == BatchingParameters(
        1024, 1500, 131, 2, tuple(range(1, 9)), enable_large_batch_splitting=True, max_execution_batch_size=8
    )
    assert read_metrics_path(flags.monitoring_config_file) == "/monitoring/prometheus/metrics"
    assert 'name: "m"' in (tmp_path / "run" / "tf" / "models.config").read_text()
    assert "specific { versions: 1 }" in (tmp_path / "run" / "tf" / "models.config").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "no model to serve"),
        ({"grpc": "10.0.0.1:8500"}, "must be on the same host"),
        ({"workers": 0}, "at least 1"),
        ({"binary": "/nonexistent/server"}, "not an executable file"),
        ({"models": (ServedModel("x", "/nonexistent"),)}, "expected a folder of version folders"),
        ({"models": (ServedModel("x", "/nonexistent", "v1"),)}, "whole numbers"),
    ],
)
def test_a_spec_that_cannot_be_served_says_why(tmp_path, changes, message):
    make_versions(tmp_path / "m", "1")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan(spec(tmp_path, **changes))


def test_a_litert_file_is_for_the_stand_in_only(tmp_path, monkeypatch):
    (tmp_path / "lite" / "1").mkdir(parents=True)
    (tmp_path / "lite" / "1" / "model.tflite").write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    models = (ServedModel("lite", str(tmp_path / "lite")),)
    assert plan(spec(tmp_path, models=models)).stand_in
    binary = str(fake_binary(tmp_path / "bin"))
    with pytest.raises(ValueError, match="LiteRT files, which tensorflow_model_server loads only with --prefer_tflite"):
        plan(spec(tmp_path, models=models, binary=binary))


def test_a_compiled_model_is_batched_to_its_own_sizes_only(tmp_path, monkeypatch):
    make_versions(tmp_path / "m", "1")
    (tmp_path / "m" / "batch_sizes.json").write_text("[1, 2, 4, 8]")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    flags = parse_flags(plan(spec(tmp_path, batching=Batching(6, 1))).argv[3:])
    assert read_batching_parameters(flags.batching_parameters_file).allowed_batch_sizes == (1, 2, 4, 6)
    binary = str(fake_binary(tmp_path / "bin"))
    with pytest.raises(ValueError, match=r"max_batch_size 6 is none of the sizes .* \(1, 2, 4, 8\)"):
        plan(spec(tmp_path, batching=Batching(6, 1), binary=binary))
    real = plan(spec(tmp_path, batching=Batching(4, 1), binary=binary))
    assert real.argv[-1] == "--xla_cpu_compilation_enabled=true"
