"""abgate.yaml: what is read, what is refused, and in which words."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from config_base import BASE, read

from gateway.cli_config import example
from gateway.config import load, parse
from gateway.errors import ConfigError
from gateway.experiments.model import Opaque
from gateway.preflight import prepare
from gateway.protocol.signature_file import Signature, TensorSpec, dumps


def test_defaults_are_the_documented_ones() -> None:
    document = read().document
    assert str(document.listen.http) == "127.0.0.1:8080"
    assert str(document.listen.grpc) == "127.0.0.1:8081"
    assert document.limits.model_dump() == {
        "body": 32 << 20,
        "rows": 1024,
        "headers": 64 << 10,
        "concurrency": 1024,
        "timeout": 30.0,
        "keep_alive": 75.0,
        "drain": 8.0,
    }
    assert document.records.path == Path("/srv/.abgate/records")
    assert document.records.retention == 10 << 30
    assert document.admin.state_file == Path("/srv/.abgate/state.json")
    assert document.admin.token_file is None
    assert document.models["digits"].guard == "strict"


def test_relative_paths_count_from_the_files_folder_and_absolute_ones_stay() -> None:
    config = read(
        {"records": {"path": "r"}, "admin": {"audit_file": "/var/audit"}, "models.digits.signature": "s.json"}
    )
    assert config.document.records.path == Path("/srv/r")
    assert config.document.admin.audit_file == Path("/var/audit")
    assert config.signature_path("digits") == Path("/srv/s.json")
    assert read().signature_path("digits") == Path("/srv/model_store/artifacts/digits/signature.json")
    assert read({"models.digits.signature": "import"}).signature_path("digits") is None


def test_a_handlers_own_bytes_need_no_signature() -> None:
    bare = {"arms": {"a": {"backend": "ts"}}, "signature": "none"}
    config = read({"models.faces": {**bare, "opaque": {"media_types": ["Image/JPEG", "text/*"], "body": "1MiB"}}})
    assert config.signature_path("faces") is None
    assert not config.imports("faces")
    spec = config.specs()["faces"]
    assert (spec.guard, spec.opaque) == ("off", Opaque(("image/jpeg", "text/*"), 1 << 20))
    assert read({"models.faces": bare}).specs()["faces"].opaque == Opaque()
    assert read().specs()["digits"].opaque is None


def test_default_artefacts_follow_the_backends_kind() -> None:
    config = read({"models.digits.arms.b.artifact": "mine/saved"})
    assert config.artifact("digits", "a") == Path("/srv/model_store/artifacts/digits/torchserve/digits")
    assert config.artifact("digits", "b") == Path("/srv/mine/saved")
    assert read().artifact("digits", "b") == Path("/srv/model_store/artifacts/digits/savedmodel")


def test_a_model_becomes_a_specification_in_the_files_order() -> None:
    arms = {
        "z": {"backend": "tf", "weight": 1, "model": "other", "version": 3, "concurrency": 4},
        "a": {"backend": "ts", "weight": 2, "format": "tfs-json"},
    }
    spec = read({"models.digits.arms": arms, "models.digits.labels": {"stable": 2}}).specs()["digits"]
    assert [(arm.name, arm.weight, arm.model, arm.version, arm.format, arm.concurrency) for arm in spec.arms] == [
        ("z", 1, "other", "3", "oip-binary", 4),
        ("a", 2, "digits", None, "tfs-json", None),
    ]
    assert spec.labels == {"stable": "2"}
    assert spec.experiment is not None
    assert (spec.experiment.id, spec.experiment.salt, spec.experiment.unit_header) == ("e", "7f3a", "x-user-id")
    assert spec.experiment.allow_forced_arm is False


def test_an_open_inference_arm_may_have_one_address_and_names_of_its_own() -> None:
    backend = {"kind": "open_inference", "grpc": "127.0.0.1:9001"}
    names = {"inputs": {"x": "INPUT__0", "same": "same"}, "outputs": {"y": "OUTPUT__0"}}
    arms = {
        "o": {"backend": "o", "weight": 1, "transport": "grpc", "names": names},
        "t": {"backend": "tf", "weight": 1},
    }
    config = read({"backends.o": backend, "models.digits.arms": arms, "models.digits.signature": "import"})
    assert config.document.backends["o"].http is None
    one, other = config.specs()["digits"].arms
    assert (one.transport, one.format) == ("grpc", "")
    assert (one.inputs, one.outputs) == ((("x", "INPUT__0"),), (("y", "OUTPUT__0"),))
    assert (other.transport, other.format, other.inputs) == ("", "oip-binary", ())


def test_names_are_held_against_the_signature(tmp_path: Path) -> None:
    signature = Signature("digits", "serving_default", (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("z", "FP32", (-1,))),
                          (TensorSpec("y", "FP32", (-1, 1)),))  # fmt: skip
    (tmp_path / "s.json").write_bytes(dumps(signature))
    names = {"inputs": {"image": "in", "x": "z"}, "outputs": {"y": "out"}}
    document = yaml.safe_load(BASE)
    document["models"]["digits"]["signature"] = "s.json"
    document["models"]["digits"]["arms"]["a"]["names"] = names
    with pytest.raises(ConfigError) as caught:
        prepare(parse(yaml.safe_dump(document, sort_keys=False), tmp_path / "abgate.yaml"))
    assert caught.value.problems == (
        "models.digits.arms.a.names.inputs: the signature has no 'image'; it has: x, z",
        "models.digits.arms.a.names.inputs: 'z' would be two of the signature's tensors",
    )


def test_one_arm_without_experiment_is_plain_routing() -> None:
    spec = read({"models.digits": {"arms": {"only": {"backend": "tf"}}}}).specs()["digits"]
    assert spec.experiment is None
    assert [arm.weight for arm in spec.arms] == [1]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unknown key", {"listn": {}}, "listn: unknown key; did you mean 'listen'?"),
    (
        "unknown key, nothing near",
        {"zzz": 1},
        "zzz: unknown key; known here: admin, backends, capture, forward_headers, limits",
    ),
    ("nested unknown key", {"limits.rowz": 1}, "limits.rowz: unknown key; did you mean 'rows'?"),
    ("missing backends", {"backends-": 0}, "backends: is missing"),
    ("no models", {"models": {}}, "models: is empty; it needs at least one entry"),
    ("no arms", {"models.digits.arms": {}}, "models.digits.arms: is empty; it needs at least one entry"),
    ("size", {"limits.body": "32 apples"}, "limits.body: must be a size above 0 such as 32MiB"),
    ("duration", {"limits.timeout": "soon"}, "limits.timeout: must be a duration above 0 such as 30s"),
    ("rows", {"limits.rows": 0}, "limits.rows: must be at least 1, not 0"),
    ("text for a number", {"limits.rows": "10"}, "limits.rows: must be a whole number, not '10'"),
    ("bool for a number", {"limits.rows": True}, "limits.rows: must be a whole number, not True"),
    (
        "port",
        {"listen": {"http": "127.0.0.1:99999"}},
        "listen.http: has port 99999; a port is a number from 1 to 65535",
    ),
    ("no port", {"listen": {"http": "localhost"}}, "listen.http: must be host:port such as 127.0.0.1:8080"),
    ("bare IPv6", {"listen": {"http": "::1:80"}}, "listen.http: must be host:port such as 127.0.0.1:8080 (IPv6"),
    ("backend port 0", {"backends.tf.http": "127.0.0.1:0"}, "backends.tf.http: has port 0"),
    ("kind", {"backends.tf.kind": "triton"}, "backends.tf.kind: must be one of 'torchserve', 'tensorflow_serving' or"),
    ("negative weight", {"models.digits.arms.a.weight": -1}, "models.digits.arms.a.weight: must be at least 0, not -1"),
    (
        "float weight",
        {"models.digits.arms.a.weight": 0.5},
        "models.digits.arms.a.weight: must be a whole number, not 0.5",
    ),
    ("no weight", {"models.digits.arms.a.weight-": 0}, "models.digits.arms.a.weight: is missing; give every arm"),
    (
        "all weights 0",
        {"models.digits.arms.a.weight": 0, "models.digits.arms.b.weight": 0},
        "models.digits.arms: every weight is 0",
    ),
    ("unknown backend", {"models.digits.arms.a.backend": "x"}, "there is no backend 'x'; there are: tf, ts"),
    (
        "no experiment",
        {"models.digits.experiment-": 0},
        "models.digits.experiment: is missing; a model with several arms",
    ),
    (
        "experiment on one arm",
        {"models.digits.arms": {"a": {"backend": "ts"}}},
        "models.digits.experiment: needs at least two arms",
    ),
    (
        "salt as number",
        {"models.digits.experiment.salt": 7},
        "salt: must be a text that is not empty (put it in quotes)",
    ),
    ("empty salt", {"models.digits.experiment.salt": ""}, "salt: must be a text that is not empty"),
    (
        "unit header",
        {"models.digits.experiment.unit": {"header": "a b"}},
        "must be the name of a header such as x-user-id",
    ),
    (
        "our own header",
        {"models.digits.experiment.unit": {"header": "x-abgate-arm"}},
        "'x-abgate-arm' has a meaning of its own",
    ),
    ("hop by hop", {"forward_headers": ["Connection"]}, "forward_headers.0: 'connection' has a meaning of its own"),
    ("arm name", {"models.digits.arms": {"a b": {"backend": "ts"}}}, "models.digits.arms.a b: must be 1 to 64 letters"),
    (
        "same id twice",
        {"models.copy": yaml.safe_load(BASE)["models"]["digits"]},
        "'e' is also the id of model 'digits'",
    ),
    (
        "import without TF",
        {"models.digits": {"arms": {"a": {"backend": "ts"}}, "signature": "import"}},
        "models.digits.signature: import reads a tensorflow_serving or open_inference arm's metadata and there is none",
    ),
    ("no address", {"backends.o": {"kind": "open_inference"}}, "backends.o: has neither http nor grpc; give it the"),
    (
        "TorchServe without HTTP",
        {"backends.o": {"kind": "torchserve", "grpc": "127.0.0.1:7"}},
        "backends.o.http: is missing, and is needed with kind: torchserve, whose readiness is asked there",
    ),
    ("half a server", {"backends.ts.grpc-": 0}, "backends.ts.grpc: is missing, and is needed with start: local"),
    (
        "an Open Inference server to start",
        {"backends.o": {"kind": "open_inference", "http": "127.0.0.1:7", "start": "local"}},
        "backends.o.start: local starts torchserve and tensorflow_serving; start an open_inference server yourself",
    ),
    ("transport", {"models.digits.arms.a.transport": "udp"}, "arms.a.transport: must be one of 'http' or 'grpc'"),
    (
        "transport without an address",
        {"backends.tf.grpc-": 0, "models.digits.arms.b.transport": "grpc"},
        "models.digits.arms.b.transport: backend 'tf' has no grpc address; give it one or leave transport out",
    ),
    (
        "a form the server does not take",
        {"models.digits.arms.a.format": "oip-json"},
        "models.digits.arms.a.format: must be oip-binary or tfs-json with kind: torchserve, not oip-json",
    ),
    ("a form where there is but one", {"models.digits.arms.b.format": "tfs-json"}, "arms.b.format: must be oip-binary"),
    (
        "two names for one tensor",
        {"models.digits.arms.a.names": {"inputs": {"x": "in", "y": "in"}}},
        "models.digits.arms.a.names.inputs: in stands for more than one of ours; each has a name of its own",
    ),
    (
        "streams",
        {"models.digits.arms.b.streams": True},
        "arms.b.streams: is for a torchserve backend with a grpc address",
    ),
    ("unknown side", {"models.digits.arms.a.names": {"input": {}}}, "names.input: unknown key; did you mean 'inputs'?"),
    (
        "opaque bytes to TensorFlow Serving",
        {"models.digits.opaque": {"media_types": ["image/jpeg"]}},
        "models.digits.arms.b.backend: 'tf' is no torchserve backend, and a TorchServe handler's own bytes",
    ),
    (
        "codec without a signature",
        {"models.digits.signature": "none", "models.digits.opaque": {"codec": "jpeg"}},
        "models.digits.opaque.codec: makes tensors of a signature and there is none",
    ),
    (
        "opaque bytes over gRPC",
        {"models.digits.opaque": {"codec": "jpeg"}, "models.digits.arms.a.transport": "grpc"},
        "models.digits.arms.a.transport: a handler's own bytes go over http",
    ),
    (
        "media type",
        {"models.digits.opaque": {"media_types": ["jpeg"]}},
        "models.digits.opaque.media_types.0: must be a media type such as image/jpeg or image/*, not 'jpeg'",
    ),
    (
        "same port twice",
        {"backends.tf.grpc": "127.0.0.1:8085", "backends.tf.start": "local"},
        "backends.tf.grpc: 127.0.0.1:8085 is backends.ts.http's too",
    ),
    (
        "listener on a backend",
        {"listen": {"http": "127.0.0.1:8085"}},
        "backends.ts.http: 127.0.0.1:8085 is listen.http's",
    ),
    ("remote local start", {"backends.ts.http": "10.0.0.1:8085"}, "start: local runs servers on 127.0.0.1 only"),
    (
        "open without a token",
        {"listen": {"http": "0.0.0.0:8080"}},
        "listen.http: 0.0.0.0:8080 can be reached from other machines and admin.token_file is not set",
    ),
    ("binary of a running server", {"backends.tf.binary": "/x"}, "backends.tf.binary: is for start: local"),
    (
        "token of TF Serving",
        {"backends.tf.token_file": "key"},
        "backends.tf.token_file: is for kind: torchserve; no other kind of server is given a token",
    ),
    (
        "token of a server started here",
        {"backends.ts.token_file": "key"},
        "backends.ts.token_file: is for start: none; a TorchServe started here is on 127.0.0.1 only",
    ),
    (
        "two authorizations",
        {"backends.ts.start": "none", "backends.ts.token_file": "key", "forward_headers": ["Authorization"]},
        "forward_headers: the clients' authorization would go beside backends.ts.token_file's",
    ),
    ("token file as number", {"backends.tf.token_file": 7}, "backends.tf.token_file: must be a path, not 7"),
    ("cores twice", {"backends.ts.cores": [0, 0]}, "backends.ts.cores: must name at least one core, each once"),
]


@pytest.mark.parametrize(("changes", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_wrong_value_is_refused_with_its_place_and_what_would_be_right(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(changes)
    assert [problem for problem in caught.value.problems if words in problem], caught.value.problems
    assert len(caught.value.problems) == 1, caught.value.problems


def test_every_problem_is_told_at_once_also_rules_beside_broken_values() -> None:
    with pytest.raises(ConfigError) as caught:
        read(
            {
                "listen": {"http": "0.0.0.0:8080", "htp": 1},
                "limits.rows": "x",
                "models.digits.arms.a.backend": "gone",
                "models.digits.arms.b.wait": 3,
            }
        )
    places = {problem.partition(":")[0] for problem in caught.value.problems}
    assert places == {
        "listen.htp",
        "listen.http",
        "limits.rows",
        "models.digits.arms.a.backend",
        "models.digits.arms.b.wait",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "must be a mapping"),
        ("models: {}\nmodels: {}", "the key 'models' is there twice"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(text, Path("abgate.yaml"))


def test_servers_that_run_already_may_share_a_port() -> None:
    assert str(read({"backends.tf.grpc": "127.0.0.1:8501"}).document.backends["tf"].grpc) == "127.0.0.1:8501"


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="abgate init"):
        load(tmp_path / "abgate.yaml")


def test_the_example_is_a_whole_configuration_with_both_models_on_both_servers() -> None:
    config = parse(example(), Path("/srv/abgate.yaml"))
    arms = {
        (model, arm.name, config.document.backends[arm.backend].kind)
        for model, spec in config.specs().items()
        for arm in spec.arms
    }
    assert arms == {
        ("digits", "torchserve", "torchserve"),
        ("digits", "tfserving", "tensorflow_serving"),
        ("mlp", "torchserve", "torchserve"),
        ("mlp", "tfserving", "tensorflow_serving"),
    }
    servers = list(config.document.backends.values())
    assert len({(s.threads, s.workers, tuple(s.cores or ()), s.batching) for s in servers}) == 1
    assert len(config.sha256) == 64


def test_a_token_is_one_word_of_its_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    config = read({"admin": {"token_file": str(token)}})
    for text in ("", "two words", "ümlaut"):
        token.write_text(text)
        with pytest.raises(ConfigError, match=r"admin\.token_file"):
            config.token()
    token.write_text("secret\n")
    assert config.token() == "secret"
    token.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        config.token()
    assert read().token() is None


def test_captures_are_off_unless_a_share_says_otherwise() -> None:
    section = read().document.capture
    assert (section.share, section.size, section.body, section.models) == (0.0, 256 << 20, 1 << 20, [])
    assert section.path == Path("/srv/.abgate/capture")
    given = read({"capture": {"share": 0.01, "size": "64MiB", "models": ["digits"]}}).document.capture
    assert (given.share, given.size, given.models) == (0.01, 64 << 20, ["digits"])


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"share": 1.5}, "capture.share: must be a share from 0 (none) to 1 (every request), such as 0.01, not 1.5"),
        ({"share": True}, "capture.share: must be a share"),
        ({"size": "1KiB"}, "capture.size: 1024 bytes hold no capture; give it at least 64KiB"),
        ({"size": "1MiB", "body": "2MiB"}, "capture.body: 2097152 bytes are more than capture.size"),
        ({"models": ["digit"]}, "capture.models: there is no model 'digit'; there are: digits"),
        ({"most": 1}, "capture.most: unknown key"),
    ],
)
def test_a_capture_that_cannot_be_is_told(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({"capture": section})
    assert any(told in problem for problem in caught.value.problems), caught.value.problems
