"""ListObjectsV2: a page of keys as XML, and the opaque token of the next."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

from include.simulators.storage.objects import Objects
from include.simulators.storage.protocol import Answer, Refused, Request, xml

_PAGE = 1_000  # keys that the vendor gives at most
_TOKEN_SECRET = b"tokens of one listing don't fit another"
_DIGEST = 12  # bytes
_KNOWN = {
    "list-type",
    "prefix",
    "max-keys",
    "start-after",
    "continuation-token",
    "encoding-type",
    "delimiter",
    "fetch-owner",
    "x-id",
}


def page(request: Request, objects: Objects, *, ignore_start_after: bool = False, ignore_token: bool = False) -> Answer:
    """The page that the request asks for. Raises Refused for what the vendor refuses or this server can't do."""
    given = {name: value for name, value in request.parameters if not name.startswith("X-Amz-")}
    _check(given)
    encoded = _encoding(given)
    prefix, token = given.get("prefix", ""), given.get("continuation-token")
    start_after = "" if ignore_start_after else given.get("start-after", "")
    size = _size(given.get("max-keys", str(_PAGE)))
    after = start_after if token is None or ignore_token else _after(token, request.bucket, prefix)
    keys, more = objects.page(prefix, after, size) if size else ([], False)
    following = _token(request.bucket, prefix, keys[-1]) if more else None
    fields = (
        ("Name", request.bucket),
        ("Prefix", encoded(prefix)),
        ("StartAfter", encoded(given["start-after"]) if given.get("start-after") else None),
        ("MaxKeys", size),
        ("EncodingType", given.get("encoding-type")),
        ("KeyCount", len(keys)),
        ("IsTruncated", "true" if more else "false"),
        ("ContinuationToken", token),
        ("NextContinuationToken", following),
    )
    head = "".join(f"<{name}>{value}</{name}>" for name, value in fields if value is not None)
    return xml(
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{head}'
        f"{objects.entries(keys, encoded)}</ListBucketResult>"
    )


def framed(answer: Answer, fields: Mapping[str, str | None]) -> Answer:
    """The page with other fields in its frame; None takes one away."""
    document = answer.body.decode()
    for name, value in fields.items():
        document = re.sub(f"<{name}>[^<]*</{name}>", "", document, count=1)
        if value is not None:
            document = re.sub("(<ListBucketResult[^>]*>)", rf"\1<{name}>{escape(value)}</{name}>", document, count=1)
    return replace(answer, body=document.encode())


def _check(given: dict[str, str]) -> None:
    if given.get("list-type") != "2":
        raise Refused("NotImplemented", "Only ListObjectsV2 and HeadBucket are implemented.")
    unknown = given.keys() - _KNOWN
    if given.get("delimiter"):
        unknown.add("delimiter")
    if given.get("fetch-owner", "false") != "false":
        unknown.add("fetch-owner")
    if unknown:
        raise Refused("NotImplemented", f"{', '.join(sorted(unknown))} is not implemented.")


def _encoding(given: dict[str, str]) -> Callable[[str], str]:
    match given.get("encoding-type"):
        case None:
            return lambda text: escape(text, {"\r": "&#13;"})
        case "url":
            return lambda text: quote_plus(text, safe="/*-._")
    raise Refused("InvalidArgument", "Invalid Encoding Method specified in Request")


def _size(text: str) -> int:
    if not text.isdecimal():
        raise Refused("InvalidArgument", "Provided max-keys not an integer or within integer range")
    return min(int(text), _PAGE)


def _token(bucket: str, prefix: str, last: str) -> str:
    return base64.urlsafe_b64encode(_digest(bucket, prefix, last) + last.encode()).decode()


def _after(token: str, bucket: str, prefix: str) -> str:
    """The last key of the page that gave the token."""
    try:
        content = base64.b64decode(token, altchars=b"-_", validate=True)
        last = content[_DIGEST:].decode()
    except (binascii.Error, ValueError):
        last, content = "", b""
    if not hmac.compare_digest(content[:_DIGEST], _digest(bucket, prefix, last)):
        raise Refused("InvalidArgument", "The continuation token provided is incorrect")
    return last


def _digest(bucket: str, prefix: str, last: str) -> bytes:
    text = f"{bucket}\n{prefix}\n{last}".encode()
    return hmac.digest(_TOKEN_SECRET, text, hashlib.sha256)[:_DIGEST]
