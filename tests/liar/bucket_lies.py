"""Lies about a bucket, by kind: false listings, and false answers about single objects."""

import re
from collections.abc import Mapping
from dataclasses import replace

from tests.liar.lies import Lie, Telling, filtered, lagging, misdated, stale, stranger
from tests.liar.wire import Reply

ENTRY = re.compile(r"<Contents>.*?</Contents>", re.DOTALL)
KEY = re.compile(r"<Key>(.*?)</Key>")
COUNT = re.compile(r"<KeyCount>\d+</KeyCount>")
MORE = re.compile(r"<IsTruncated>\w+</IsTruncated>")
CODES = ("NoSuchKey", "NoSuchBucket", "AccessDenied", "InternalError", "SlowDown", "InvalidRequest")
STATUSES = (301, 307, 400, 401, 403, 404, 404, 405, 410, 412, 429, 500, 501, 503)


def is_list(truth: Reply) -> bool:
    return b"<ListBucketResult" in truth.body


def entries_of(truth: Reply) -> list[str]:
    return ENTRY.findall(truth.body.decode())


def listing(truth: Reply, entries: list[str], *, counted: bool = True) -> Reply:
    """The listing with these entries in the place of its own."""
    text = truth.body.decode()
    head, _, tail = text.partition("<Contents>")
    if not tail:
        head, tail = text.rsplit("</ListBucketResult>", 1)[0], ""
    frame = COUNT.sub(f"<KeyCount>{len(entries)}</KeyCount>", head) if counted else head
    return replace(truth, body=f"{frame}{''.join(entries)}</ListBucketResult>".encode())


def ended(truth: Reply) -> Reply:
    """The listing as if nothing followed."""
    text = MORE.sub("<IsTruncated>false</IsTruncated>", truth.body.decode())
    return replace(truth, body=re.sub(r"<NextContinuationToken>.*?</NextContinuationToken>", "", text).encode())


def missing(*, marker: bool = False) -> Reply:
    """The answer to a HEAD of a key that has no object."""
    return Reply(404, b"", {"content-type": "application/xml", **({"x-amz-delete-marker": "true"} if marker else {})})


async def empty(telling: Telling, truth: Reply) -> Reply:
    """A bucket without objects, or an object without bytes."""
    if is_list(truth):
        return ended(listing(truth, []))
    return replace(truth, headers={**truth.headers, "content-length": "0"}) if truth.is_good else truth


async def short(telling: Telling, truth: Reply) -> Reply:
    """Keys left out of a listing, counted or not; the end of it cut off."""
    entries, random = entries_of(truth), telling.random
    if not entries:
        return truth
    if random.random() < 0.3:
        return ended(listing(truth, entries[: random.randrange(len(entries))]))
    kept = [entry for entry in entries if random.random() < random.choice([0.5, 0.9])]
    return listing(truth, kept, counted=random.random() < 0.8)


async def torn(telling: Telling, truth: Reply) -> Reply:
    """Of each key what was true before or after the change."""
    old, random = await telling.ask(telling.asked, "old"), telling.random
    if not is_list(truth):
        return random.choice([old, truth])
    before, after = entries_of(old), entries_of(truth)
    kept = [
        entry for entry in sorted({*before, *after}) if (entry in before and entry in after) or random.random() < 0.5
    ]
    return listing(truth, kept)


async def swapped(telling: Telling, truth: Reply) -> Reply:
    """What is true of another object, or of another part of the bucket."""
    if is_list(truth):
        entries = entries_of(truth)
        return listing(truth, entries[telling.random.randrange(max(1, len(entries))) :])
    return missing() if truth.is_good else Reply(200, b"", {"content-length": "7", "etag": '"another"'})


async def renamed(telling: Telling, truth: Reply) -> Reply:
    """The listing of a bucket of another name, or with keys that are written otherwise."""
    if not is_list(truth):
        return truth
    text, random = truth.body.decode(), telling.random
    match random.choice(["bucket", "case", "prefix", "encoded"]):
        case "bucket":
            text = re.sub(r"<Name>.*?</Name>", "<Name>another-bucket</Name>", text)
        case "case":
            text = KEY.sub(lambda key: f"<Key>{key[1].upper()}</Key>", text)
        case "prefix":
            text = KEY.sub(lambda key: f"<Key>backup/{key[1]}</Key>", text)
        case "encoded":
            text = KEY.sub(lambda key: f"<Key>{key[1].replace('/', '%2F')}</Key>", text)
    return replace(truth, body=text.encode())


async def enveloped(telling: Telling, truth: Reply) -> Reply:
    """An error as the document of a success."""
    if telling.asked.method == "HEAD":
        return truth
    code = telling.random.choice(CODES)
    return replace(truth, body=f"<Error><Code>{code}</Code><Message>Try again.</Message></Error>".encode())


async def denied(telling: Telling, truth: Reply) -> Reply:
    """An error status; for a HEAD without a body."""
    status, code = telling.of_run.choice(STATUSES), telling.of_run.choice(CODES)
    headers = {"content-type": "application/xml"}
    if telling.of_run.random() < 0.3:
        headers["x-minio-error-code"] = code
    body = (
        b"" if telling.asked.method == "HEAD" else f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
    )
    return Reply(status, body, headers)


async def marked(telling: Telling, truth: Reply) -> Reply:
    """An object that is said to be deleted, in a bucket that keeps versions."""
    return missing(marker=telling.of_run.random() < 0.5) if truth.is_good and telling.asked.method == "HEAD" else truth


async def sized(telling: Telling, truth: Reply) -> Reply:
    """Objects of no size, in listings and by themselves."""
    if is_list(truth):
        return replace(truth, body=re.sub(rb"<Size>\d+</Size>", b"<Size>0</Size>", truth.body))
    return replace(truth, headers={**truth.headers, "content-length": "0"}) if truth.is_good else truth


async def repeated(telling: Telling, truth: Reply) -> Reply:
    """Keys twice, or out of order."""
    entries, random = entries_of(truth), telling.random
    if len(entries) < 2:
        return truth
    if random.random() < 0.5:
        entries.insert(random.randrange(len(entries)), random.choice(entries))
    else:
        random.shuffle(entries)
    return listing(truth, entries)


async def miscounted(telling: Telling, truth: Reply) -> Reply:
    """A listing whose count or end doesn't fit its keys."""
    if not is_list(truth):
        return truth
    text = truth.body.decode()
    match telling.random.choice(["count", "more", "none"]):
        case "count":
            text = COUNT.sub("<KeyCount>1</KeyCount>", text)
        case "more":
            text = MORE.sub("<IsTruncated>true</IsTruncated>", text)
        case "none":
            text = COUNT.sub("", MORE.sub("", text))
    return replace(truth, body=text.encode())


async def mangled(telling: Telling, truth: Reply) -> Reply:
    """What is no answer of a store at all, or half of one."""
    random, head = telling.random, telling.asked.method == "HEAD"
    html = b"<!DOCTYPE html><html><body>We'll be back soon</body></html>"
    ways = [Reply(0), Reply(200, b"" if head else html, {"content-type": "text/html"}), Reply(204)]
    if head:
        ways += [Reply(404, b"", {"content-type": "text/html"}), Reply(200, b"", {"content-type": "text/html"})]
    else:
        ways += [
            replace(truth, body=truth.body[: len(truth.body) // 2]),
            replace(truth, cut=True),
            replace(truth, body=b""),
        ]
    return random.choice(ways)


KINDS: Mapping[str, Lie] = {
    each.__name__: each
    for each in (
        empty,
        short,
        stale,
        torn,
        swapped,
        renamed,
        enveloped,
        filtered,
        lagging,
        denied,
        marked,
        sized,
        repeated,
        miscounted,
        mangled,
        misdated,
        stranger,
    )
}
