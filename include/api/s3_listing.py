"""The pages of a bucket's listing (ListObjectsV2), read far faster than boto3 reads them.

boto3 builds a tree of each page twice and then objects of every field, of which the keys alone are wanted. Here a
page of the usual form is read by a regular expression; any other form is parsed as XML. A page that could hide a
key is no page at all: a key that is not seen would read as an object that is not there.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
_OBJECT = re.compile(r"<Contents>.*?</Contents>", re.DOTALL)
_EMPTY = re.compile(r"<Size>\s*0\s*</Size>")
_FIELD = re.compile(r"<(\w+)>([^<&\s]*)</\1>|<(\w+) ?/>")
# What a page repeats of the question that it answers.
_ECHO = ("Name", "Prefix", "StartAfter", "ContinuationToken")
_FIELDS = (*_ECHO, "IsTruncated", "NextContinuationToken", "KeyCount", "EncodingType")


@dataclass(frozen=True)
class Page:
    """Keys in the store's order, and the token to go on with where more of them follow.

    `empty`: those whose objects have no content. `echo`: which bucket, prefix and place the page says that it is about,
    by the names of S3's fields; what a page doesn't say is left out.
    """

    keys: Sequence[str]
    more: bool
    token: str | None
    empty: frozenset[str] = frozenset()
    echo: Mapping[str, str] = field(default_factory=dict)

    def answers(self, question: Mapping[str, str]) -> bool:
        """Whether nothing that the page says of its question contradicts the one that was asked."""
        return all(question.get(name, "") in (said, unquote_plus(said)) for name, said in self.echo.items())


# Raw keys, fields of the frame, and the keys of objects without content.
_Read = tuple[list[str], dict[str, str], list[str]]


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
    return _page(*(_scan(body) or _parse(body) or ((), {}, ())))


def _scan(body: bytes) -> _Read | None:
    """What a page of the usual form holds, None for any other: entities and comments among the rest."""
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
    fields = {name or bare: value for name, value, bare in _FIELD.findall(frame)}
    if any(f"<{name}" in frame and name not in fields for name in _FIELDS):
        return None
    empty = [bool(_EMPTY.search(each)) for each in _OBJECT.findall(text)] if _EMPTY.search(text) else []
    return keys, fields, [key for key, is_empty in zip(keys, empty, strict=False) if is_empty]


def _parse(body: bytes) -> _Read | None:
    """The same by the rules of XML, None if it is no page."""
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, LookupError, ValueError):
        return None
    if root.tag.rpartition("}")[2] != "ListBucketResult":
        return None
    objects = [(contents.findtext("{*}Key", ""), contents.findtext("{*}Size", "")) for contents in _contents(root)]
    fields = {name: text for name in _FIELDS if (text := root.findtext(f"{{*}}{name}")) is not None}
    return [key for key, _ in objects], fields, [key for key, size in objects if size.strip() == "0"]


def _contents(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    return root.iterfind("{*}Contents")


def _page(keys: Sequence[str], fields: Mapping[str, str], empty: Sequence[str]) -> Page | None:
    if fields.get("EncodingType") == "url":
        try:
            keys, empty = _decoded(keys), _decoded(empty)
        except UnicodeDecodeError:
            return None
    more = {"true": True, "false": False}.get(fields.get("IsTruncated", ""))
    token = fields.get("NextContinuationToken") or None
    complete = fields.get("KeyCount", str(len(keys))) == str(len(keys)) and all(keys)
    # More follows if there is a token, and only then; a page that says something else contradicts itself.
    if more is not (token is not None) or not complete or not fields.get("Name"):
        return None
    return Page(keys, more, token, frozenset(empty), {name: fields[name] for name in _ECHO if name in fields})


def _decoded(keys: Sequence[str]) -> list[str]:
    return [unquote_plus(key, errors="strict") if "%" in key or "+" in key else key for key in keys]
