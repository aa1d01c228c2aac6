"""docker-compose.yml and the files it mounts say what the rest of the project says, and publish no more than they should."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.embedded.flags import parse_flags
from backends.spec import Batching, ServedModel
from backends.tfserving.config_text import batching_parameters, model_config_list, monitoring_config
from backends.torchserve.__main__ import parse
from gateway.config import load
from loadtest.profiles import find

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
CONFIG = load(FOLDER / "abgate.yaml")


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """Where something is mounted -> (what, whether it may be written)."""
    found = {}
    for text in SERVICES[service].get("volumes", []):
        source, target, *mode = text.split(":")
        found[target] = (source, mode != ["ro"])
    return found


def test_only_the_gateway_and_locusts_page_are_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert sorted(published) == ["gateway", "locust-master"]
    for ports in published.values():
        for port in ports:
            assert re.fullmatch(r"127\.0\.0\.1:\$\{ABGATE_[A-Z]+_PORT:-\d+\}:\d+", port), port
    listen = CONFIG.document.listen
    assert {int(port.rpartition(":")[2]) for port in published["gateway"]} == {listen.http.port, listen.grpc.port}
    assert not any(service.get("network_mode") == "host" for service in SERVICES.values())
    assert "profiles" in SERVICES["locust-master"], "the page is there only with its profile"


WRITERS = {
    "models": {"/models", "/secrets"},
    "gateway": {"/state"},
    "prometheus": {"/prometheus"},
    "comparison": {"/runs"},
}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_writes_only_what_is_its_own(service: str) -> None:
    assert {target for target, (_, writable) in mounts(service).items() if writable} == WRITERS.get(service, set())


def test_every_mount_is_there() -> None:
    for service in SERVICES:
        for source, _ in mounts(service).values():
            assert source in COMPOSE["volumes"] or (source.startswith("./") and (ROOT / source).exists()), source


def test_images_are_pinned_and_dockerfiles_exist() -> None:
    for name, service in SERVICES.items():
        if "build" in service:
            text = (ROOT / service["build"]["dockerfile"]).read_text(encoding="utf-8")
            images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
            users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
            assert users == ["10001"], f"{name} must not run as root"
        else:
            images = [service["image"]]
        for image in images:
            assert re.search(r":v?\d+\.\d+(\.\d+)?[a-z0-9.-]*$", image), f"{name}: {image} is not pinned"


def test_the_gateway_cannot_write_outside_its_state() -> None:
    assert SERVICES["gateway"]["read_only"] is True
    document = CONFIG.document
    for path in (document.admin.state_file, document.admin.audit_file, document.records.path):
        assert path.is_relative_to("/state")


def test_the_gateways_configuration_names_services_their_ports_and_the_token() -> None:
    document = CONFIG.document
    assert str(document.admin.token_file) == "/secrets/admin.token"
    assert {address.host for b in document.backends.values() for address in (b.http, b.grpc)} <= SERVICES.keys()
    torchserve, _ = parse(SERVICES["torchserve"]["command"])
    told = document.backends["torchserve"]
    for flag, address in (("http", told.http), ("grpc", told.grpc), ("management", told.management)):
        assert address is not None
        assert getattr(torchserve, flag) == f"0.0.0.0:{address.port}"
    flags = parse_flags(SERVICES["tfserving"]["command"])
    told = document.backends["tfserving"]
    assert (flags.rest_api_port, flags.port) == (told.http.port, told.grpc.port)


def test_both_servers_get_the_same_resources_and_batching() -> None:
    torchserve, tfserving = SERVICES["torchserve"], SERVICES["tfserving"]
    for key in ("cpus", "mem_limit", "memswap_limit"):
        assert torchserve[key] == tfserving[key]
    spec, _ = parse(torchserve["command"])
    flags = parse_flags(tfserving["command"])
    assert flags.tensorflow_intra_op_parallelism == spec.threads
    assert flags.tensorflow_inter_op_parallelism == spec.workers
    assert flags.enable_batching
    for backend in CONFIG.document.backends.values():
        told = Batching(backend.batching.max_batch_size, backend.batching.max_wait_ms)
        assert (backend.threads, backend.workers, told) == (spec.threads, spec.workers, spec.batching)
    expected = batching_parameters(spec.batching, spec.workers, spec.job_queue, CONFIG.document.limits.rows)
    assert (FOLDER / "tfserving" / "batching.config").read_text(encoding="utf-8") == expected


def test_both_servers_serve_the_gateways_models() -> None:
    names = tuple(CONFIG.document.models)
    spec, _ = parse(SERVICES["torchserve"]["command"])
    assert [model.name for model in spec.models] == list(names)
    served = tuple(ServedModel(name, f"/models/{name}/savedmodel") for name in names)
    assert (FOLDER / "tfserving" / "models.config").read_text(encoding="utf-8") == model_config_list(served)
    assert (FOLDER / "tfserving" / "monitoring.config").read_text(encoding="utf-8") == monitoring_config()
    flags = parse_flags(SERVICES["tfserving"]["command"])
    for path in (flags.model_config_file, flags.batching_parameters_file, flags.monitoring_config_file):
        assert (FOLDER / "tfserving" / Path(path).relative_to("/config")).is_file()
    for name in names:
        assert CONFIG.signature_path(name) == Path("/models") / name / "signature.json"
        for server in ("torchserve", "tfserving"):
            assert name in " ".join(SERVICES[server]["healthcheck"]["test"]), f"{server}'s health check forgets {name}"


def test_services_wait_for_what_they_need() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    done, healthy = {"condition": "service_completed_successfully"}, {"condition": "service_healthy"}
    assert waits["torchserve"] == waits["tfserving"] == {"models": done}
    assert waits["gateway"] == {"torchserve": healthy, "tfserving": healthy}
    for name in ("prometheus", "locust-master", "comparison"):
        assert waits[name] == {"gateway": healthy}
        assert "healthcheck" in SERVICES["gateway"]
    assert waits["locust-worker"] == {"locust-master": healthy}


def test_locust_loads_a_profile_that_is_shipped() -> None:
    told = SERVICES["locust-master"]["environment"]["ABGATE_PROFILE_NAME"]
    default = re.fullmatch(r"\$\{ABGATE_PROFILE_NAME:-(\w+)\}", told)
    assert default is not None
    assert find(default[1]).is_file()
    assert find(SERVICES["comparison"]["command"][0]).is_file()


def test_prometheus_reads_the_addresses_the_gateway_knows() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    read = {f"{job['static_configs'][0]['targets'][0]}{job.get('metrics_path', '')}" for job in jobs}
    backends = CONFIG.document.backends.values()
    assert read == {f"gateway:{CONFIG.document.listen.http.port}", *(str(backend.metrics) for backend in backends)}
