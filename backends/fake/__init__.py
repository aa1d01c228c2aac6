"""A backend that misbehaves on command: for tests of what stands in front of it, and of who saw which request."""

from backends.fake.behaviour import MODES, Seen
from backends.fake.server import FakeBackend

__all__ = ["MODES", "FakeBackend", "Seen"]
