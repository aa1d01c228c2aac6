"""TensorFlow's signature definitions in the signature file's words: the gateway's own reading, used here as well."""

from gateway.protocol.served_signature import from_metadata, from_signature_defs

__all__ = ["from_metadata", "from_signature_defs"]
