"""TorchServe, the real one: its launch plan, its configuration and the handler its workers run."""

from backends.torchserve.folder import handler_files, handler_path, model_config
from backends.torchserve.plan import plan

__all__ = ["handler_files", "handler_path", "model_config", "plan"]
