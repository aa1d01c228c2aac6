"""REST paths -> use cases, in TF Serving's URL grammar (http_rest_api_util.cc, http_rest_api_handler.cc, tag 2.19.1).

Lives here: path patterns, gzip bodies, error -> HTTP answer. Must not live here: sockets, JSON tensors.
"""

from __future__ import annotations

import logging
import re
import zlib
from urllib.parse import unquote

from backends.embedded.catalog import Wanted
from backends.embedded.errors import ServingError, invalid
from backends.embedded.http_server import Request, Response
from backends.embedded.json_write import error_body
from backends.embedded.metrics import CONTENT_TYPE, ServingMetrics
from backends.embedded.service import Service

JSON = "application/json"
MAX_INFLATED = 2**30  # bytes

_POST = re.compile(
    r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", re.IGNORECASE | re.ASCII
)
_V1 = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)

logger = logging.getLogger(__name__)


class RestApi:
    """The handler the HTTP server calls, from many threads."""

    def __init__(self, service: Service, metrics: ServingMetrics, metrics_path: str | None) -> None:
        self._service = service
        self._metrics = metrics
        self._metrics_path = metrics_path

    def __call__(self, request: Request) -> Response:
        """Answer one request; never raises."""
        path = request.target.partition("?")[0]
        try:
            if path == self._metrics_path and request.method == "GET":
                return Response(200, self._metrics.text().encode(), CONTENT_TYPE)
            if not _V1.fullmatch(path):
                return Response(404, b"Not Found\n", CONTENT_TYPE)
            return Response(200, self._answer(request, path), JSON)
        except ServingError as error:
            return Response(error.http_status, error_body(error.message), JSON)
        except Exception as error:  # the last resort: one request's bug must not take its connection's thread
            logger.exception("%s %s failed", request.method, path)
            return Response(500, error_body(f"{type(error).__name__}: {error}"), JSON)

    def _answer(self, request: Request, path: str) -> bytes:
        if request.method == "POST" and (match := _POST.fullmatch(path)):
            method = match[4]
            if method == "predict":
                return self._service.predict_json(_wanted(match), _body(request))
            if method in {"classify", "regress"}:
                return self._service.classify_json(method, _body(request))
        elif request.method == "GET" and (match := _GET.fullmatch(path)):
            if not match[1]:
                raise invalid("Missing model name in request.")
            wanted = _wanted(match)
            return self._service.metadata_json(wanted) if match[4] else self._service.status_json(wanted)
        raise invalid(f"Malformed request: {request.method} {path}")


def _wanted(match: re.Match[str]) -> Wanted:
    version = None
    if match[2] is not None:
        version = int(match[2]) if len(match[2]) < 25 else 2**64
        if version >= 2**63:
            raise invalid(f"Failed to convert version: {match[2]} to numeric.")
    return Wanted(unquote(match[1]), version, None if match[3] is None else unquote(match[3]))


def _body(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return request.body
    if encoding != "gzip":
        raise invalid(f"Content-Encoding {encoding} is not supported: send gzip or none")
    inflater = zlib.decompressobj(wbits=31)
    try:
        body = inflater.decompress(request.body, MAX_INFLATED)
    except zlib.error as error:
        raise invalid(f"Body is not gzip: {error}") from None
    if inflater.unconsumed_tail or not inflater.eof:
        raise invalid(f"Body is not a whole gzip stream of at most {MAX_INFLATED} bytes")
    return body
