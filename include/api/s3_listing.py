"""The pages of a bucket's listing (ListObjectsV2), read far faster than boto3 reads them.

boto3 parses each page into a tree twice and then builds objects of every field, although only the keys are needed.
Here a regular expression reads a page of the usual form, and any other form is parsed as XML. A page that could hide a
key is refused: a key that is not seen would count as an object that does not exist.

A key that is no UTF-8, or longer than S3 allows, is left out: no text can name it, so nobody asks for it, and Postgres
could not keep it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from botocore.client import BaseClient

PAGE = "Page"
# The error code that a page gets if it can't be read.
UNREADABLE = "UnreadableListing"
# The number of objects on each page whose fields are all kept.
SAMPLE = 10

_START = re.compile(
    r'\s*(<\?xml version="1\.0"( encoding="utf-8")?( standalone="\w+")? ?\?>)?\s*<ListBucketResult[ >]', re.IGNORECASE
)
_END = "</ListBucketResult>"
_KEY = re.compile(r"<Contents>\s*<Key>([^<]*)</Key>")
_OBJECT = re.compile(r"<Contents>.*?</Contents>", re.DOTALL)
_EMPTY = re.compile(r"<Size>\s*0\s*</Size>")
# In bytes of UTF-8.
LONGEST_KEY = 1_024
_FIELD = re.compile(r"<(\w+)>([^<&\s]*)</\1>|<(\w+) ?/>")
# The fields in which a page repeats the question.
_ECHO = ("Name", "Prefix", "StartAfter", "ContinuationToken")
_FIELDS = (*_ECHO, "IsTruncated", "NextContinuationToken", "KeyCount", "EncodingType")


@dataclass(frozen=True)
class ObjectPage:
    """Keys in the store's order. `more`: keys follow, and `token` leads to them.

    `empty`: keys whose objects have no content. `echo`: the bucket, prefix and place that the page says it is about, by
    the names of S3's fields. Fields that the page leaves out are missing. `sample`: the XML of its first objects (see
    `fields_of`).
    """

    keys: Sequence[str]
    more: bool
    token: str | None
    empty: frozenset[str] = frozenset()
    echo: Mapping[str, str] = field(default_factory=dict)
    sample: Sequence[str] = ()

    def answers(self, question: Mapping[str, str]) -> bool:
        """Return whether the page's `echo` fits the question that was asked."""
        return all(question.get(name, "") in (said, unquote_plus(said)) for name, said in self.echo.items())


# Raw keys, fields of the frame, the keys of objects without content, and the sample.
_Read = tuple[list[str], dict[str, str], list[str], list[str]]


def read_leanly(client: BaseClient) -> None:
    """Make a boto3 client's `list_objects_v2` answer with an `ObjectPage` under the key PAGE, and without `Contents`.

    A page that can't be read becomes an error 500 with the code UNREADABLE, so that boto3 retries it as configured.
    Signing, errors and redirects stay with boto3.
    """
    # This handler must be called before boto3's own, which parses the whole page to look for an error and is registered
    # as `before-parse.s3.*`. boto3 calls handlers with `*` in place of the service first.
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


def read_page(body: bytes) -> ObjectPage | None:
    """Return the page in an answer's body, None if it can't be read with certainty."""
    return _page(*(_read_with_regex(body) or _read_as_xml(body) or ((), {}, (), ())))


def _read_with_regex(body: bytes) -> _Read | None:
    """Read a page of the usual form. Return None for any other form, such as one with comments, or entities in keys."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    # Looking for the single character first is much faster.
    commented = "!" in text and "<!" in text
    if commented or not _START.match(text) or not text.rstrip().endswith(_END):
        return None
    keys = _KEY.findall(text)
    # Each object has an opening and a closing tag. A key with `&` or a carriage return has to be unescaped.
    together = "".join(keys)
    if text.count("Contents>") != 2 * len(keys) or "&" in together or "\r" in together:
        return None
    # The fields of the page itself stand before the first object or after the last one.
    frame = text[: text.find("<Contents>")] + text[text.rfind("</Contents>") :] if keys else text
    fields = {name or bare: value for name, value, bare in _FIELD.findall(frame)}
    if any(f"<{name}" in frame and name not in fields for name in _FIELDS):
        return None
    empty = [bool(_EMPTY.search(each)) for each in _OBJECT.findall(text)] if _EMPTY.search(text) else []
    sample = [each[0] for each in islice(_OBJECT.finditer(text), SAMPLE)]
    return keys, fields, [key for key, is_empty in zip(keys, empty, strict=False) if is_empty], sample


def _read_as_xml(body: bytes) -> _Read | None:
    """Read a page with an XML parser. Return None if it is no page."""
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, LookupError, ValueError):
        return None
    if root.tag.rpartition("}")[2] != "ListBucketResult":
        return None
    objects = [(contents.findtext("{*}Key", ""), contents.findtext("{*}Size", "")) for contents in _contents(root)]
    fields = {name: text for name in _FIELDS if (text := root.findtext(f"{{*}}{name}")) is not None}
    sample = [ElementTree.tostring(contents, "unicode") for contents in islice(_contents(root), SAMPLE)]
    return [key for key, _ in objects], fields, [key for key, size in objects if size.strip() == "0"], sample


def fields_of(sample: Sequence[str]) -> list[dict[str, Any]]:
    """Return the fields of the objects in a page's sample: by its name each a text, or an object of texts.

    Empty if their names are of a namespace that only the page declares.
    """
    try:
        return [_fields(each) for each in ElementTree.fromstring(f"<sample>{''.join(sample)}</sample>")]
    except ElementTree.ParseError:
        return []


def _fields(element: ElementTree.Element) -> dict[str, Any]:
    """Return the fields of an element, without namespaces. If a field is repeated, its last value counts."""
    return {each.tag.rpartition("}")[2]: _fields(each) if len(each) else each.text or "" for each in element}


def _contents(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    return root.iterfind("{*}Contents")


def _page(
    keys: Sequence[str], fields: Mapping[str, str], empty: Sequence[str], sample: Sequence[str]
) -> ObjectPage | None:
    listed, encoded = len(keys), fields.get("EncodingType") == "url"
    keys, empty = (_usable(each, encoded=encoded) for each in (keys, empty))
    more = {"true": True, "false": False}.get(fields.get("IsTruncated", ""))
    token = fields.get("NextContinuationToken") or None
    complete = fields.get("KeyCount", str(listed)) == str(listed) and all(keys)
    # There is a token if and only if more keys follow; any other page contradicts itself. Postgres keeps no NUL in it.
    if more is not (token is not None) or "\0" in (token or "") or not complete or not fields.get("Name"):
        return None
    echo = {name: fields[name] for name in _ECHO if name in fields}
    return ObjectPage(keys, more, token, frozenset(empty), echo, sample)


def _usable(keys: Sequence[str], *, encoded: bool) -> Sequence[str]:
    """Return the keys as texts, without those that are no UTF-8 or too long. `encoded`: they are percent-encoded."""
    if encoded:
        keys = [text for key in keys if (text := _decoded(key)) is not None]
    if max(map(len, keys), default=0) > LONGEST_KEY // 4:
        keys = [key for key in keys if len(key.encode()) <= LONGEST_KEY]
    return keys


def _decoded(key: str) -> str | None:
    """Return the key, None if it is no UTF-8."""
    try:
        return unquote_plus(key, errors="strict") if "%" in key or "+" in key else key
    except UnicodeDecodeError:
        return None
