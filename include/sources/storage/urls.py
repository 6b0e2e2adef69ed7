"""Where an object's url points: the bucket, and the keys that it may mean.

A url is ambiguous as soon as it holds `%`, `?` or `#`: who made it may have encoded the key, as the standard wants, or
just put it behind a slash. An object is missing only if none of the readings exists, so no plausible one is left out.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

# Bucket (if the host names it) and endpoint: s3, s3-region, s3-fips, s3.dualstack, ..., with or without a region.
AWS = re.compile(
    r"(?:(?P<bucket>.+?)\.)?s3(?:-[a-z0-9-]+)?(?:\.dualstack)?(?:\.[a-z]+(?:-[a-z0-9]+)+)?\.amazonaws\.com(?:\.cn)?"
)
# From the last `?` on, if a parameter signs the url or names a version: then it is a query, and no part of a key.
QUERY = re.compile(r"\?(?:[^?]*&)?(?:x-amz-[a-z0-9-]+|awsaccesskeyid|versionid)=[^?]*\Z", re.IGNORECASE)
QUERY_OR_FRAGMENT = re.compile(r"[?#]")
NO_HOST = re.compile(r"[?#\\\s]")
KNOWN_HOSTS = 1_024


class UnreadableUrl(ValueError):
    """A text that names no object in a bucket. The message is one line and doesn't repeat the text."""


@dataclass(frozen=True)
class Location:
    """A bucket, and the keys in it that a url may mean: at least one, the standard reading first."""

    bucket: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Host:
    """What scheme and host say: the bucket, None where the path names it. `raw`: the path is not encoded.

    `repeated`: a key that begins so may not be one yet, since the path may name the bucket, and the host not.
    """

    bucket: str | None = None
    raw: bool = False
    repeated: str = "/"


def locate(url: str, bucket: str) -> Location:
    """Read where `url` points; `bucket` is the configured one, by which a host of any vendor is known to name it.

    Any other bucket is named as the url has it. One slash parts host, bucket and key; all further slashes belong to
    the key, and a key that begins with one is also read without it. A `+` is a plus sign. A decoded key that isn't
    UTF-8 is no reading. Raises UnreadableUrl, also for a key with a NUL.
    """
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    host = _host(scheme, authority, bucket)
    name, key = host.bucket, path
    if name is None:
        name, _, key = path.lstrip("/").partition("/")
    # Millions of urls are plain: they are read without further ado.
    if key and not ("%" in path or "?" in path or "#" in path or key[0] == "/" or key.startswith(host.repeated)):
        return Location(name, (key,))
    return Location(name, _readings(name, key, host))


@lru_cache(maxsize=KNOWN_HOSTS)
def _host(scheme: str, authority: str, bucket: str) -> _Host:
    if scheme.lower() not in ("http", "https", "s3"):
        raise UnreadableUrl("the url doesn't begin with http://, https:// or s3://")
    host = authority.rpartition("@")[2].partition(":")[0].rstrip(".").lower()
    if not host or NO_HOST.search(authority):
        raise UnreadableUrl("the url names no host, or no object behind it")
    if scheme.lower() == "s3":
        return _Host(authority, raw=True)
    if aws := AWS.fullmatch(host):
        named = aws["bucket"]
        return _Host(bucket if named == bucket.lower() else named)
    if host.startswith(f"{bucket.lower()}."):
        return _Host(bucket, repeated=f"{bucket}/")
    return _Host()


def _readings(name: str, key: str, host: _Host) -> tuple[str, ...]:
    """All readings of a key that isn't plain, the standard one first."""
    if QUERY_OR_FRAGMENT.search(name):
        raise _no_key()
    if host.raw:
        readings = [key, _decoded(key)]
    else:
        whole = QUERY.sub("", key)
        cut = QUERY_OR_FRAGMENT.split(whole, maxsplit=1)[0]
        readings = [_decoded(cut), cut, whole, _decoded(whole)]
    readings += [reading.removeprefix(host.repeated).lstrip("/") for reading in readings]
    distinct = tuple(dict.fromkeys(filter(None, readings)))
    if not distinct:
        raise _no_key()
    return distinct


def _decoded(text: str) -> str:
    """The text without percent-encoding; as it is where that gives no UTF-8, which no key of S3 is."""
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        return text
    if "\0" in decoded:
        # It may exist, and no text in Postgres can hold it to look for it.
        raise UnreadableUrl("the url names a key with a NUL character")
    return decoded


def _no_key() -> UnreadableUrl:
    return UnreadableUrl("the url names no object, at most a bucket")
