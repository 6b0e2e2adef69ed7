"""Signature version 4, as the vendor documents it: who sent a request, and that nobody changed it on the way."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote, unquote

from include.simulators.storage.protocol import Refused, Request

_ALGORITHM = "AWS4-HMAC-SHA256"
_LONGEST = 604_800  # seconds that a presigned URL may be valid
_SKEW = timedelta(minutes=15)
_INSTANT = "%Y%m%dT%H%M%SZ"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_HEADER = re.compile(
    rf"{_ALGORITHM} +Credential=(?P<credential>[^,]+), *SignedHeaders=(?P<signed>[^,]+), *Signature=(?P<signature>\w+)"
)
_QUERY = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")
_SPACES = re.compile(" +")


@dataclass(frozen=True)
class _Claim:
    """What a request says of its own signature."""

    access_key: str
    date: str
    region: str
    signed_headers: tuple[str, ...]
    signature: str
    instant: str
    payload: str
    query: list[tuple[str, str]]

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/s3/aws4_request"


def verify(request: Request, secrets: Mapping[str, str], moment: datetime | None = None) -> str:
    """Check who signed the request and return the region that it is signed for.

    `secrets` maps access keys to secret keys. Raises Refused with the vendor's code for a request that is not
    signed, too old, signed by an unknown or with a wrong key, or changed since.
    """
    moment = moment or datetime.now(UTC)
    if "authorization" in request.headers:
        claim = _of_header(request)
        _check_clock(claim, moment)
    elif any(name == "X-Amz-Signature" for name, _ in request.parameters):
        claim = _of_query(request, moment)
    else:
        raise Refused("AccessDenied", "Access Denied")
    if claim.access_key not in secrets:
        raise Refused("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    _check_headers(request, claim)
    expected = _signature(request, claim, secrets[claim.access_key])
    if not hmac.compare_digest(expected, claim.signature):
        raise Refused(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
        )
    _check_payload(request, claim.payload)
    return claim.region


def _of_header(request: Request) -> _Claim:
    match = _HEADER.fullmatch(request.headers["authorization"].strip())
    if not match:
        raise Refused("AuthorizationHeaderMalformed", "The authorization header that you provided is not valid.")
    if "x-amz-date" not in request.headers:
        raise Refused("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    if "x-amz-content-sha256" not in request.headers:
        raise Refused("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    access_key, date, region = _credential(match["credential"], "AuthorizationHeaderMalformed")
    return _Claim(
        access_key,
        date,
        region,
        tuple(match["signed"].split(";")),
        match["signature"],
        request.headers["x-amz-date"],
        request.headers["x-amz-content-sha256"],
        request.parameters,
    )


def _of_query(request: Request, moment: datetime) -> _Claim:
    given = dict(request.parameters)
    if missing := [name for name in _QUERY if name not in given]:
        raise Refused("AuthorizationQueryParametersError", f"Query-string authentication requires {missing[0]}")
    if given["X-Amz-Algorithm"] != _ALGORITHM:
        raise Refused("AuthorizationQueryParametersError", f'X-Amz-Algorithm only supports "{_ALGORITHM}"')
    access_key, date, region = _credential(given["X-Amz-Credential"], "AuthorizationQueryParametersError")
    _check_expiry(given["X-Amz-Date"], given["X-Amz-Expires"], moment)
    return _Claim(
        access_key,
        date,
        region,
        tuple(given["X-Amz-SignedHeaders"].split(";")),
        given["X-Amz-Signature"],
        given["X-Amz-Date"],
        _UNSIGNED,
        [(name, value) for name, value in request.parameters if name != "X-Amz-Signature"],
    )


def _credential(text: str, code: str) -> tuple[str, str, str]:
    """Access key, date and region; an access key may hold slashes, the scope can't."""
    match text.rsplit("/", 4):
        case [access_key, date, region, "s3", "aws4_request"]:
            return access_key, date, region
    raise Refused(code, "Error parsing the credential; expecting <key>/YYYYMMDD/REGION/s3/aws4_request.")


def _instant(text: str) -> datetime:
    try:
        return datetime.strptime(text, _INSTANT).replace(tzinfo=UTC)
    except ValueError:
        raise Refused("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None


def _check_clock(claim: _Claim, moment: datetime) -> None:
    if abs(moment - _instant(claim.instant)) > _SKEW:
        raise Refused(
            "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."
        )


def _check_expiry(signed_at: str, seconds: str, moment: datetime) -> None:
    if not seconds.isdecimal() or not 0 < int(seconds) <= _LONGEST:
        raise Refused("AuthorizationQueryParametersError", "X-Amz-Expires must be between 1 and 604800 seconds")
    start = _instant(signed_at)
    if moment < start - _SKEW:
        raise Refused("AccessDenied", "Request is not yet valid")
    if moment > start + timedelta(seconds=int(seconds)):
        raise Refused("AccessDenied", "Request has expired")


def _check_headers(request: Request, claim: _Claim) -> None:
    unsigned = {name for name in request.headers if name == "host" or name.startswith("x-amz-")}
    if not unsigned <= set(claim.signed_headers):
        raise Refused("AccessDenied", "There were headers present in the request which were not signed")


def _check_payload(request: Request, payload: str) -> None:
    if payload.startswith("STREAMING-"):
        raise Refused("NotImplemented", "A chunked upload is not implemented.")
    if payload != _UNSIGNED and payload != hashlib.sha256(request.body).hexdigest():
        raise Refused(
            "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed."
        )


def _signature(request: Request, claim: _Claim, secret_key: str) -> str:
    canonical = "\n".join(
        (
            request.method,
            _encoded(unquote(request.path), safe="/"),
            "&".join(f"{name}={value}" for name, value in sorted((_encoded(n), _encoded(v)) for n, v in claim.query)),
            *(f"{name}:{_SPACES.sub(' ', request.headers.get(name, '')).strip()}" for name in claim.signed_headers),
            "",
            ";".join(claim.signed_headers),
            claim.payload,
        )
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"{_ALGORITHM}\n{claim.instant}\n{claim.scope}\n{digest}"
    return _sign(_signing_key(secret_key, claim.date, claim.region), to_sign).hex()


@lru_cache(maxsize=64)
def _signing_key(secret_key: str, date: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = _sign(key, part)
    return key


def _sign(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _encoded(text: str, safe: str = "") -> str:
    return quote(text, safe=f"{safe}-_.~")
