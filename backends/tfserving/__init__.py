"""The TensorFlow side of the comparison: the real tensorflow_model_server where it can be had, else the stand-in."""

from backends.tfserving.command import plan

__all__ = ["plan"]
