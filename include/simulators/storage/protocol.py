"""S3's REST protocol as values: a request, an answer, and a refusal with the code that the vendor gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from secrets import token_hex
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from include.simulators.answers import Answer

_STATUS = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidRequest": 400,
    "InvalidURI": 400,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotImplemented": 501,
    "PermanentRedirect": 301,
    "RequestTimeTooSkewed": 403,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "TemporaryRedirect": 307,
    "XAmzContentSHA256Mismatch": 400,
}
# The code that an ordered status gets where the order names none.
USUAL_CODES = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    500: "InternalError",
    501: "NotImplemented",
    503: "SlowDown",
}
_XML = "application/xml"


class Refused(Exception):
    """A request that isn't carried out: the vendor's code, a message, and headers of the answer."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.code, self.message, self.headers = code, message, headers or {}


@dataclass(frozen=True)
class Request:
    """A request as it came: `path` and `query` still encoded, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""

    @cached_property
    def bucket(self) -> str:
        """The first segment of the path: addressing is path style."""
        return self.path.split("/", 2)[1]

    @cached_property
    def key(self) -> str:
        """The object's key; empty for a request to the bucket. Bytes that aren't UTF-8 become surrogates."""
        return unquote(self.path[1:].partition("/")[2], errors="surrogateescape")

    @cached_property
    def parameters(self) -> list[tuple[str, str]]:
        """The query's parameters, decoded; a name may come twice."""
        return parse_qsl(self.query, keep_blank_values=True)

    @property
    def operation(self) -> str:
        """What faults and counters call it: `list`, `bucket` (its HEAD), or the method on an object (`head`, `get`)."""
        if self.key:
            return self.method.lower()
        return {"GET": "list", "HEAD": "bucket"}.get(self.method, f"bucket_{self.method.lower()}")


def xml(document: str) -> Answer:
    """A successful answer with an XML document."""
    return Answer(200, f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode(), content_type=_XML)


def error(request: Request, refused: Refused, status: int | None = None, *, minio: bool = False) -> Answer:
    """The answer to a refused request; a HEAD learns no more than the status (and the code, from MinIO)."""
    status = status or _STATUS[refused.code]
    if request.method == "HEAD":
        named = {"x-minio-error-code": refused.code} if minio else {}
        return Answer(status, b"", named | dict(refused.headers), _XML)
    document = xml(
        f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message>"
        f"<Resource>{escape(request.path)}</Resource><RequestId>{token_hex(8).upper()}</RequestId></Error>"
    )
    return Answer(status, document.body, refused.headers, _XML)
