"""Which versions are served: the base paths on disk, the version policy, the labels, and one snapshot requests read.

Lives here: polling, deciding, loading one after the other, publishing. Must not live here: how a version is loaded (a
function passed in) or any wire. A new version is loaded before the old one goes, and the old one stays when the new one
fails (TF Serving's AvailabilityPreservingPolicy). Requests read one immutable snapshot and take no lock.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.embedded.config_files import ModelConfig
from backends.embedded.errors import Code, ServingError
from backends.embedded.servable import Servable

MAX_LOAD_RETRIES = 5

logger = logging.getLogger(__name__)

Load = Callable[[str, int, str], Servable]


@dataclass(frozen=True)
class VersionStatus:
    """State of one version, in the words of ModelVersionStatus.State; `code` and `message` say why a load failed."""

    version: int
    state: str
    code: Code = Code.OK
    message: str = ""


@dataclass(frozen=True)
class ModelView:
    """What a request may see of one model."""

    available: Mapping[int, Servable] = field(default_factory=dict)
    statuses: Mapping[int, VersionStatus] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Which model a request wants: by version, by label, or the newest."""

    name: str
    version: int | None = None
    label: str | None = None


class Catalog:
    """The served models; `refresh` is called by one thread only, everything else by any."""

    def __init__(self, configs: tuple[ModelConfig, ...], load: Load) -> None:
        self._configs = configs
        self._load = load
        self._views: Mapping[str, ModelView] = {}
        self._attempts: dict[tuple[str, int], int] = {}

    def resolve(self, wanted: Wanted) -> Servable:
        """Return the version to run; raises ServingError with TF Serving's texts (server_core.cc, manager.h)."""
        view = self._views.get(wanted.name)
        version = wanted.version
        if wanted.label is not None:
            version = view.labels.get(wanted.label) if view else None
            if view is None or version not in view.available:
                # A label on a version that is not available is refused, as by default in TF Serving.
                raise ServingError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {wanted.label}")
        if view is not None and view.available:
            if version is None:
                return view.available[max(view.available)]
            if version in view.available:
                return view.available[version]
        which = f"Latest({wanted.name})" if version is None else f"Specific({wanted.name}, {version})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {which}")

    def knows(self, name: str) -> bool:
        """Tell whether a model of this name is configured or was."""
        return name in self._views

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Return the states of a model's versions, newest first; raises ServingError (get_model_status_impl.cc)."""
        view = self._views.get(name)
        known = view.statuses if view else {}
        if version is not None:
            if version not in known:
                raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return [known[version]]
        if not known:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [known[number] for number in sorted(known, reverse=True)]

    def configure(self, configs: tuple[ModelConfig, ...]) -> None:
        """Replace the model list; the next `refresh` acts on it."""
        self._configs = configs

    def refresh(self) -> None:
        """Look at the disk once: load what is new, then unload what is no longer wanted."""
        configs = {config.name: config for config in self._configs}
        for name in [*configs, *(name for name in self._views if name not in configs)]:
            config = configs.get(name)
            self._refresh_model(name, config)

    def _refresh_model(self, name: str, config: ModelConfig | None) -> None:
        wanted = wanted_versions(config) if config else {}
        self._publish(name, labels=dict(config.labels) if config else {})
        for version in sorted(wanted):
            if version not in self._view(name).available:
                self._bring_up(name, version, wanted[version])
        available = self._view(name).available
        leaving = [version for version in available if version not in wanted]
        if leaving and (not wanted or any(version in available for version in wanted)):
            for version in leaving:
                self._take_down(name, version)
            gc.unfreeze()
            gc.collect()  # a TensorFlow graph is full of reference cycles; its session ends with it
            gc.freeze()

    def _bring_up(self, name: str, version: int, directory: str) -> None:
        attempts = self._attempts.get((name, version), 0)
        if attempts > MAX_LOAD_RETRIES:
            return
        self._status(name, VersionStatus(version, "LOADING"))
        logger.info("loading %s version %d from %s", name, version, directory)
        try:
            servable = self._load(name, version, directory)
        except Exception as error:  # a broken SavedModel can raise anything; it must not end the server
            self._attempts[name, version] = attempts + 1
            code = error.code if isinstance(error, ServingError) else Code.UNKNOWN
            message = error.message if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
            self._status(name, VersionStatus(version, "END", code, message))
            logger.error("loading %s version %d failed (attempt %d): %s", name, version, attempts + 1, message)
            return
        self._attempts.pop((name, version), None)
        gc.freeze()  # the graph's objects live long: the collector need not walk them while requests run
        view = self._view(name)
        status = VersionStatus(version, "AVAILABLE")
        self._publish(
            name,
            available={**view.available, version: servable},
            statuses={**view.statuses, version: status},
        )
        logger.info("%s version %d is available", name, version)

    def _take_down(self, name: str, version: int) -> None:
        view = self._view(name)
        self._publish(
            name,
            available={number: servable for number, servable in view.available.items() if number != version},
            statuses={**view.statuses, version: VersionStatus(version, "END")},
        )
        logger.info("%s version %d is unloaded", name, version)

    def _view(self, name: str) -> ModelView:
        return self._views.get(name, ModelView())

    def _status(self, name: str, status: VersionStatus) -> None:
        self._publish(name, statuses={**self._view(name).statuses, status.version: status})

    def _publish(self, name: str, **changes: Mapping[Any, Any]) -> None:
        self._views = {**self._views, name: replace(self._view(name), **changes)}


def wanted_versions(config: ModelConfig) -> dict[int, str]:
    """List the base path and apply the version policy: version -> directory; names that are not whole numbers are ignored."""
    found: dict[int, str] = {}
    try:
        for entry in sorted(Path(config.base_path).iterdir()):
            if entry.name.isascii() and entry.name.isdigit() and entry.is_dir():
                found.setdefault(int(entry.name), str(entry))
    except OSError as error:
        logger.error("base path %s of %s: %s", config.base_path, config.name, error.strerror)
        return {}
    if not found:
        logger.warning("no versions of %s found under base path %s", config.name, config.base_path)
    if config.specific:
        return {version: found[version] for version in config.specific if version in found}
    if config.every:
        return found
    return {version: found[version] for version in sorted(found)[-config.latest :]}


def poll(catalog: Catalog, seconds: float, stop: threading.Event, reread: Callable[[], None]) -> None:
    """Refresh the catalog every `seconds` until `stop`; 0 or less means once, as TF Serving's flag."""
    catalog.refresh()
    while seconds > 0 and not stop.wait(seconds):
        reread()
        catalog.refresh()
