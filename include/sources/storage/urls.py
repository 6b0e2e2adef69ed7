"""Read the url of an object: the bucket, and the keys that it may mean.

A url with `%`, `?` or `#` is ambiguous: the key may be encoded, as the standard demands, or may stand there as it is.
It may also be encoded twice, or as forms are, with `+` for a space; and an accent may be a character of its own in the
key and not in the url. An object is missing only if the bucket has none of the keys, so every plausible reading counts.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

# Bucket (if the host names it) and endpoint: s3, s3-region, s3-fips, s3.dualstack, ..., with or without a region.
AWS = re.compile(
    r"(?:(?P<bucket>.+?)\.)?s3(?:-[a-z0-9-]+)?(?:\.dualstack)?(?:\.[a-z]+(?:-[a-z0-9]+)+)?\.amazonaws\.com(?:\.cn)?"
)
# The text from the last `?` on is a query, and no part of a key, if a parameter signs the url or names a version.
QUERY = re.compile(r"\?(?:[^?]*&)?(?:x-amz-[a-z0-9-]+|awsaccesskeyid|versionid)=[^?]*\Z", re.IGNORECASE)
QUERY_OR_FRAGMENT = re.compile(r"[?#]")
AMBIGUOUS = re.compile(r"[%?#+]|[^\x00-\x7f]")
NO_HOST = re.compile(r"[?#\\\s]")
KNOWN_HOSTS = 1_024


class UnreadableUrl(ValueError):
    """The text is no url of an object. The message is one line and does not repeat the text."""


@dataclass(frozen=True)
class Location:
    """A bucket, and the keys that a url may mean: at least one, the standard reading first."""

    bucket: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Host:
    """What scheme and host say about the path behind them.

    - `bucket`: the bucket that the host names; None if the path begins with the bucket
    - `raw`: the path is not percent-encoded
    - `repeated`: a prefix of the path that may not belong to the key: a slash, or `bucket/`. The host `photos.example`
      may name the bucket `photos` or be called so by chance; then the path begins with the bucket after all.
    """

    bucket: str | None = None
    raw: bool = False
    repeated: str = "/"


def locate(url: str, bucket: str) -> Location:
    """Return the bucket and the possible keys of `url`. `bucket` is the configured one.

    A host that begins with the configured bucket names it; any other bucket is returned as the url has it. One slash
    separates host, bucket and key. Further slashes belong to the key, which is also read without those at its start. If
    decoding gives no UTF-8, the text stays as it is. Raises UnreadableUrl, also for a NUL.
    """
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    host = _host(scheme, authority, bucket)
    name, key = host.bucket, path
    if name is None:
        name, _, key = path.lstrip("/").partition("/")
    # Most of millions of urls are plain, and need no further work.
    if key and not (AMBIGUOUS.search(path) or key[0] == "/" or key.startswith(host.repeated)):
        return Location(name, (key,))
    return Location(name, _readings(name, key, host))


@lru_cache(maxsize=KNOWN_HOSTS)
def _host(scheme: str, authority: str, bucket: str) -> _Host:
    """Return what scheme and host say. `bucket` is the configured one. Raises UnreadableUrl."""
    if scheme.lower() not in ("http", "https", "s3"):
        raise UnreadableUrl("the url doesn't begin with http://, https:// or s3://")
    host = authority.rpartition("@")[2].partition(":")[0].rstrip(".").lower()
    if not host or NO_HOST.search(authority):
        raise UnreadableUrl("the url names no host, or no object behind it")
    # In s3://bucket/key the bucket stands where other urls have the host.
    if scheme.lower() == "s3":
        return _Host(authority, raw=True)
    if aws := AWS.fullmatch(host):
        # `host` is in lower case, the configured bucket may not be. Without a bucket in the host, the path names it.
        in_host = aws["bucket"]
        return _Host(bucket if in_host == bucket.lower() else in_host)
    if host.startswith(f"{bucket.lower()}."):
        return _Host(bucket, repeated=f"{bucket}/")
    return _Host()


def _readings(bucket: str, key: str, host: _Host) -> tuple[str, ...]:
    """Return the keys that `key`, the part of the url after the bucket, may mean; the standard reading first.

    Raises UnreadableUrl if there is none.
    """
    # If a query or a fragment begins before the key, there is no key.
    if QUERY_OR_FRAGMENT.search(bucket):
        raise _no_key()
    if host.raw:
        readings = [key, _decoded(key)]
    else:
        unsigned = QUERY.sub("", key)
        path_only = QUERY_OR_FRAGMENT.split(unsigned, maxsplit=1)[0]
        readings = [_decoded(path_only), path_only, unsigned, _decoded(unsigned)]
    if any("\0" in reading for reading in readings):
        # Such a key may exist, but Postgres can't store it.
        raise UnreadableUrl("the url names a key with a NUL character")
    readings += [reading.removeprefix(host.repeated).lstrip("/") for reading in readings]
    readings += [again for reading in readings if "\0" not in (again := _decoded(reading))]
    readings += [reading.replace("+", " ") for reading in readings]
    readings += [normalize(form, reading) for form in ("NFC", "NFD") for reading in readings]
    distinct = tuple(dict.fromkeys(filter(None, readings)))
    if not distinct:
        raise _no_key()
    return distinct


def _decoded(text: str) -> str:
    """Return the text without percent-encoding, or as it is if that gives no UTF-8: all keys of S3 are UTF-8."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        return text


def _no_key() -> UnreadableUrl:
    return UnreadableUrl("the url names no object, at most a bucket")
