"""Read the url of an object: the bucket, and the keys that it may mean.

A url with `%`, `?` or `#` is ambiguous: the key may be encoded, as the standard demands, or may stand there as it is.
It may also be encoded twice, or as forms are, with `+` for a space; an accent may be a character of its own in the key
and not in the url; and a browser would drop spaces around a url and `..` in it. An object is missing only if the bucket
has none of the keys, so every plausible reading counts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

from include.api.s3_listing import LONGEST_KEY

# Bucket (if the host names it) and endpoint: s3, s3-region, s3-fips, s3.dualstack, ..., with or without a region.
AWS = re.compile(
    r"(?:(?P<bucket>.+?)\.)?s3(?:-[a-z0-9-]+)?(?:\.dualstack)?(?:\.[a-z]+(?:-[a-z0-9]+)+)?\.amazonaws\.com(?:\.cn)?"
)
# A host that is a store by its looks: local, an address, or with s3 in its name. Any other may be a CDN.
VENDOR = re.compile(r"(?:.+\.)?(?:localhost|s3(?:[.-].*)?)")
STORE = re.compile(rf"[^.]+|[\d.]+|{VENDOR.pattern}")
WEB_PORTS = ("", "80", "443")
# The text from the last `?` on is a query, and no part of a key, if a parameter signs the url or names a version.
QUERY = re.compile(r"\?(?:[^?]*&)?(?:x-amz-[a-z0-9-]+|awsaccesskeyid|versionid)=[^?]*\Z", re.IGNORECASE)
QUERY_OR_FRAGMENT = re.compile(r"[?#]")
# What makes a path ambiguous: a character, or a segment that is empty or has dots only.
AMBIGUOUS = re.compile(r"[\x00-\x20%?#+&\\]|[^\x00-\x7f]|(?:\A|/)\.{0,2}(?:/|\Z)")
LINE_BREAKS = re.compile(r"[\t\r\n]")
NO_HOST = re.compile(r"[?#\\\s]")
KNOWN_HOSTS = 1_024


class UnreadableUrl(ValueError):
    """The text is no url of an object. The message is one line and does not repeat the text."""


@dataclass(frozen=True)
class Location:
    """A bucket, and the keys that a url may mean: at least one, the standard reading first.

    `otherwise`: what the url may mean if the bucket has none of the keys; empty if the object is missing then.

    - `foreign`: an object of another bucket
    - `unreadable`: a key that is no UTF-8, for which nobody can ask
    - `by_chance`: an object of another bucket, if the host is called like this bucket by chance. Then the first folder
      of the key is that bucket. If this bucket has objects in that folder, the host stands for it.
    """

    bucket: str
    keys: tuple[str, ...]
    otherwise: str = ""


@dataclass(frozen=True)
class _Host:
    """What scheme and host say about the path behind them.

    - `bucket`: the bucket that the host names; None if the path begins with the bucket
    - `raw`: the path is not percent-encoded
    - `repeated`: a prefix of the path that may not belong to the key: a slash, or `bucket/`. The host `photos.example`
      may name the bucket `photos` or be called so by chance; then the path begins with the bucket after all.
    - `sure`: the host is known as that of a store. Else `photos.example` may be so called by chance, and the host of a
      CDN may stand for the bucket, so that what begins the path is the key.
    """

    bucket: str | None = None
    raw: bool = False
    repeated: str = "/"
    sure: bool = True


def locate(url: str, bucket: str, endpoint: str = "") -> Location:
    """Return the bucket and the possible keys of `url`. `bucket` is the configured one, `endpoint` its store's host.

    A host that begins with the configured bucket names it; any other bucket is returned as the url has it. One slash
    separates host, bucket and key. Further slashes belong to the key, which is also read without those at its start. If
    decoding gives no UTF-8, the text stays as it is. Raises UnreadableUrl, also for a NUL and for a key that is too
    long for S3.
    """
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    host = _host(scheme, authority, bucket, endpoint)
    name, key = _split(path, host)
    # Most of millions of urls are plain, and need no further work. No reading is longer than the path.
    if key and len(path) <= LONGEST_KEY and not AMBIGUOUS.search(path) and not key.startswith(host.repeated):
        if host.bucket is None and not host.sure and name == bucket:
            return Location(name, (key, path))
        return Location(name, (key,), "by_chance" if _by_chance(path, host) else "")
    return _all_readings(path, host, bucket)


def _all_readings(path: str, host: _Host, bucket: str) -> Location:
    """Return what the path may mean, in every reading. `bucket` is the configured one. Raises UnreadableUrl."""
    places = [_split(text, host) for text in _texts(path, host)]
    name, _ = places[0]
    # If a query or a fragment begins before the key, there is no key.
    if QUERY_OR_FRAGMENT.search(name):
        raise _no_key()
    keys = list(dict.fromkeys(each for place, text in places if place == name for each in _readings(text, host)))
    if not (host.sure or host.bucket) and name == bucket:
        keys += [whole for each in keys if (whole := f"{bucket}/{each}") not in keys]
    fitting = tuple(each for each in keys if _fits(each))
    if not fitting:
        raise _no_key() if not keys else UnreadableUrl(f"the url names a key of more than {LONGEST_KEY} bytes")
    if any(place != name for place, _ in places):
        return Location(name, fitting, "foreign")
    if not all(_is_utf8(text) for _, text in places):
        return Location(name, fitting, "unreadable")
    return Location(name, fitting, "by_chance" if any(_by_chance(text, host) for _, text in places) else "")


@lru_cache(maxsize=KNOWN_HOSTS)
def _host(scheme: str, authority: str, bucket: str, endpoint: str) -> _Host:
    """Return what scheme and host say. `bucket` and `endpoint` are the configured ones. Raises UnreadableUrl."""
    if scheme.lower() not in ("http", "https", "s3"):
        raise UnreadableUrl("the url doesn't begin with http://, https:// or s3://")
    host, _, port = authority.rpartition("@")[2].partition(":")
    host = host.rstrip(".").lower()
    if not host or NO_HOST.search(authority):
        raise UnreadableUrl("the url names no host, or no object behind it")
    # In s3://bucket/key the bucket stands where other urls have the host. A key is at times kept with its bucket.
    if scheme.lower() == "s3":
        return _Host(authority, raw=True, repeated=f"{authority}/")
    if aws := AWS.fullmatch(host):
        # `host` is in lower case, the configured bucket may not be. Without a bucket in the host, the path names it.
        in_host = aws["bucket"]
        return _Host(bucket if in_host == bucket.lower() else in_host)
    if host == endpoint:
        return _Host()
    if host.startswith(f"{bucket.lower()}."):
        store = host[len(bucket) + 1 :]
        return _Host(bucket, repeated=f"{bucket}/", sure=store == endpoint or bool(VENDOR.fullmatch(store)))
    return _Host(sure=port not in WEB_PORTS or bool(STORE.fullmatch(host)))


def _texts(path: str, host: _Host) -> list[str]:
    """Return the texts that may be meant by a path, before they are decoded; the path as it stands first."""
    unsigned = QUERY.sub("", path)
    texts = [path, unsigned] if host.raw else [unsigned]
    # A url that was copied from HTML has entities.
    texts += [unescape(text) for text in texts]
    texts += [_tidied(text) for text in texts]
    return list(dict.fromkeys(texts))


def _tidied(text: str) -> str:
    """Return the path as a browser sends it: without line breaks, spaces around it, and segments of dots or nothing."""
    text = LINE_BREAKS.sub("", text).strip()
    path = QUERY_OR_FRAGMENT.split(text, maxsplit=1)[0]
    *folders, last = path.replace("\\", "/").split("/")
    kept: list[str] = []
    for folder in folders:
        dots = folder.lower().replace("%2e", ".")
        if dots == "..":
            del kept[-1:]
        elif dots not in ("", "."):
            kept.append(folder)
    return "/".join([*kept, last]) + text[len(path) :]


def _split(text: str, host: _Host) -> tuple[str, str]:
    """Return the bucket and what follows it."""
    if host.bucket is not None:
        return host.bucket, text
    name, _, key = text.lstrip("/").partition("/")
    return name, key


def _by_chance(text: str, host: _Host) -> bool:
    """Return whether the host may be called like the bucket by chance, so that the path begins with another bucket."""
    if host.sure or host.bucket is None:
        return False
    name, _, key = QUERY_OR_FRAGMENT.split(text, maxsplit=1)[0].lstrip("/").partition("/")
    return key != "" and name != host.bucket


def _readings(key: str, host: _Host) -> Iterator[str]:
    """Yield the keys that `key`, the part of a url after the bucket, may mean; the standard reading first.

    Raises UnreadableUrl for a NUL.
    """
    path_only = QUERY_OR_FRAGMENT.split(key, maxsplit=1)[0]
    readings = [_decoded(path_only), path_only, key, _decoded(key)]
    if host.raw:
        readings = [key, _decoded(key), path_only, _decoded(path_only)]
    if any("\0" in reading for reading in readings):
        # Such a key may exist, but Postgres can't store it.
        raise UnreadableUrl("the url names a key with a NUL character")
    readings += [reading.removeprefix(host.repeated).lstrip("/") for reading in readings]
    readings += [again for reading in readings if "\0" not in (again := _decoded(reading))]
    readings += [reading.replace("+", " ") for reading in readings]
    readings += [normalize(form, reading) for form in ("NFC", "NFD") for reading in readings]
    yield from filter(None, readings)


def _is_utf8(key: str) -> bool:
    """Return whether the key is UTF-8 when it is decoded."""
    try:
        unquote_to_bytes(QUERY_OR_FRAGMENT.split(key, maxsplit=1)[0]).decode()
    except UnicodeError:
        return False
    return True


def _fits(key: str) -> bool:
    return len(key.encode(errors="surrogatepass")) <= LONGEST_KEY


def _decoded(text: str) -> str:
    """Return the text without percent-encoding, or as it is if that gives no UTF-8: all keys of S3 are UTF-8."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        return text


def _no_key() -> UnreadableUrl:
    return UnreadableUrl("the url names no object, at most a bucket")
