"""A stand-in for TensorFlow Serving on TensorFlow's own C++ session: same SavedModels, same REST and gRPC API.

Lives here: everything of the process started by `python -m backends.embedded`. Must not live here: anything the gateway or
the launcher imports (that is `backends.tfserving`, which writes the flags and files this process reads). It is for machines
where `tensorflow_model_server` cannot be had; answers and parity seen on it count, speed against another server does not.
"""
