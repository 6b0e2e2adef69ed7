"""The pages of a bucket's listing (ListObjectsV2), read far faster than boto3 reads them.

boto3 builds a tree of each page twice and then objects of every field, of which the keys alone are wanted. Here a
page of the usual form is read by a regular expression; any other form is parsed as XML. A page that could hide a
key is no page at all: a key that is not seen would read as an object that is not there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from botocore.client import BaseClient

PAGE = "Page"
# The code of S3's errors that a page gets which can't be read.
UNREADABLE = "UnreadableListing"

_START = re.compile(
    r'\s*(<\?xml version="1\.0"( encoding="utf-8")?( standalone="\w+")? ?\?>)?\s*<ListBucketResult[ >]', re.IGNORECASE
)
_END = "</ListBucketResult>"
_KEY = re.compile(r"<Contents>\s*<Key>([^<]*)</Key>")
_FIELD = re.compile(r"<(\w+)>([^<&\s]*)</\1>")
_FIELDS = ("IsTruncated", "NextContinuationToken", "KeyCount", "EncodingType")


@dataclass(frozen=True)
class Page:
    """Keys in the store's order, whether more of them follow, and the token to go on with if the store gave one."""

    keys: Sequence[str]
    more: bool
    token: str | None


def read_leanly(client: BaseClient) -> None:
    """Make `list_objects_v2` of a client of boto3 answer with a `Page` under the name PAGE, and without `Contents`.

    A page that can't be read counts as the store's error 500 with the code UNREADABLE, so that boto3 asks again as
    its configuration says. All else (signing, errors, redirects) stays boto3's.
    """
    # One of boto3's handlers parses the whole page to see whether it is an error. It is registered for `s3.*`, and only
    # an earlier wildcard comes before that.
    client.meta.events.register("before-parse.*.ListObjectsV2", _replace, unique_id=__name__)


def _replace(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    if response_dict["status_code"] != 200:
        return
    page = read_page(response_dict["body"])
    if page is None:
        response_dict["status_code"] = 500
        response_dict["body"] = f"<Error><Code>{UNREADABLE}</Code></Error>".encode()
    else:
        customized_response_dict[PAGE] = page
        response_dict["body"] = b""


def read_page(body: bytes) -> Page | None:
    """The page that the body of an answer holds, None where that is not certain."""
    return _page(*(_scan(body) or _parse(body) or ((), {})))


def _scan(body: bytes) -> tuple[list[str], dict[str, str]] | None:
    """Raw keys and fields of a page of the usual form, None for any other: entities and comments among the rest."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    # The single character is found far sooner than the pair.
    commented = "!" in text and "<!" in text
    if commented or not _START.match(text) or not text.rstrip().endswith(_END):
        return None
    keys = _KEY.findall(text)
    together = "".join(keys)
    if text.count("Contents>") != 2 * len(keys) or "&" in together or "\r" in together:
        return None
    # What isn't about single objects stands before the first of them or behind the last one.
    frame = text[: text.find("<Contents>")] + text[text.rfind("</Contents>") :] if keys else text
    fields = dict(_FIELD.findall(frame))
    if any(f"<{name}" in frame and name not in fields for name in _FIELDS):
        return None
    return keys, fields


def _parse(body: bytes) -> tuple[list[str], dict[str, str]] | None:
    """Raw keys and fields of a page by the rules of XML, None if it is none."""
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, LookupError, ValueError):
        return None
    if root.tag.rpartition("}")[2] != "ListBucketResult":
        return None
    keys = [contents.findtext("{*}Key", "") for contents in root.iterfind("{*}Contents")]
    return keys, {name: text for name in _FIELDS if (text := root.findtext(f"{{*}}{name}")) is not None}


def _page(keys: Sequence[str], fields: dict[str, str]) -> Page | None:
    if fields.get("EncodingType") == "url":
        try:
            keys = [unquote_plus(key, errors="strict") if "%" in key or "+" in key else key for key in keys]
        except UnicodeDecodeError:
            return None
    more = {"true": True, "false": False}.get(fields.get("IsTruncated", ""))
    token = fields.get("NextContinuationToken") or None
    complete = fields.get("KeyCount", str(len(keys))) == str(len(keys)) and all(keys)
    stuck = more and not keys and token is None
    return None if more is None or stuck or not complete else Page(keys, more, token)
