"""`python -m backends.embedded --flags`: sets TensorFlow's environment, then serves.

Exit codes: 0 stopped after a drain, 1 requests were cut at the stop or the server failed, 3 bad flags or files.
"""

from __future__ import annotations

import logging
import os
import sys


def main() -> int:
    """Run the stand-in in the foreground."""
    from backends.embedded.flags import parse_flags

    flags = parse_flags(sys.argv[1:])
    # With oneDNN's kernels one tensor of the wrong rank aborts the process; without them it is an error of that request
    # (and batch 1 of a small CNN is 3 times faster). It must be set before TensorFlow is imported.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    try:
        from backends.embedded.config_files import ConfigError
        from backends.embedded.server import serve
    except ModuleNotFoundError as error:
        print(f"the stand-in needs TensorFlow: pip install 'abgate[tensorflow]' ({error})", file=sys.stderr)
        return 3
    try:
        return serve(flags)
    except ConfigError as error:
        print(f"backends.embedded: {error}", file=sys.stderr)
        return 3
    except (OSError, RuntimeError) as error:
        print(f"backends.embedded: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Not sys.exit: TensorFlow's and gRPC's threads may still run, and interpreter shutdown under them can crash.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
