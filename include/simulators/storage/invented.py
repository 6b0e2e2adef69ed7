"""The rows that a seed gives the application: every status and every form of URL, all of it consistent."""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import quote

USER_COLUMNS = ("id", "auth0_sub", "created_at")
PROJECT_COLUMNS = ("id", "user_id", "name", "created_at")
ORIGINAL_COLUMNS = ("id", "content_hash", "s3_key", "file_size", "mime_type", "reference_count", "created_at")
IMAGE_COLUMNS = (
    "id",
    "project_id",
    "original_url",
    "staged_url",
    "room_type",
    "style",
    "seed",
    "status",
    "error",
    "created_at",
    "updated_at",
    "cost_usd",
    "model_used",
    "processing_time_ms",
    "replicate_prediction_id",
    "deleted_at",
    "prompt",
    "original_image_id",
)

WITHOUT_STAGED = 1_000
"""One in as many rows is `ready` without a staged_url: what a worker that died between two updates leaves behind."""
_SHARED = 10  # one in as many rows names a row of original_images in place of a URL
_SHARING = 4  # images with the same original
_DELETED = 41  # one in as many rows is soft-deleted
_ODD = 50  # one in as many has a name that a URL has to encode
_IMAGES = 50  # in a project
_PROJECTS = 10  # of a user

_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
_SPAN = 300 * 24 * 3_600  # seconds from the first row to the last
_STATUSES = ("ready",) * 78 + ("queued",) * 11 + ("processing",) * 5 + ("error",) * 6
_ERRORS = ("model timed out", "NSFW content detected", "prediction failed", "could not download original")
_NAMES = ("living-room", "kitchen", "IMG_4711", "bedroom", "front", "DSC00042", "terrace", "bath")
_ODD_NAMES = ("my living room", "1+1 rooms", "100% done", "kitchen%20new", "küche", "リビング", "a&b=c", "plan #3")
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_MIME_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
_ROOMS = ("living_room", "bedroom", "kitchen", None)
_STYLES = ("modern", "scandinavian", "industrial", None)
_SIXTEEN = struct.Struct("<16I")
_PRESIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=0a1b2c"


def upload_key(user: str, name: str, unique: str, extension: str) -> str:
    """Where the application has an original uploaded to."""
    return f"uploads/{user}/{name}-{unique}{extension}"


def staged_key(image_id: str) -> str:
    """Where the worker puts its result."""
    return f"staged/{image_id[:8]}/{image_id}-staged.jpg"


def path_style(key: str, bucket: str, endpoint: str) -> str:
    """The URL of an object as an endpoint of one's own has it."""
    return f"{endpoint}/{bucket}/{quote(key)}"


def staged_url(key: str, bucket: str) -> str:
    """The URL that the worker writes: nothing in it is encoded."""
    return f"s3://{bucket}/{key}"


def _vendor_url(key: str, bucket: str, luck: int) -> str:
    """One of the forms that the vendor's own endpoints have."""
    hosts = (
        f"{bucket}.s3.amazonaws.com",
        f"{bucket}.s3.us-east-1.amazonaws.com",
        f"s3.us-east-1.amazonaws.com/{bucket}",
    )
    return f"https://{hosts[luck % 3]}/{quote(key)}"


@dataclass(frozen=True)
class Invented:
    """The `place`-th image of a seed; whatever is asked of it follows from these two."""

    seed: int
    place: int

    @cached_property
    def id(self) -> str:
        return _id(self.seed, "image", self.place)

    @property
    def deleted(self) -> bool:
        return self.place % _DELETED == 11

    @property
    def shared(self) -> int | None:
        """The number of the original that it shares with others."""
        return self.place // (_SHARED * _SHARING) if self.place % _SHARED == 3 else None

    @cached_property
    def status(self) -> str:
        return "ready" if self._without_staged else self._one_of(_STATUSES, 0)

    @cached_property
    def original_key(self) -> str:
        if self.shared is not None:
            return _shared_key(self.seed, self.shared)
        name = self._one_of(_ODD_NAMES if self.place % _ODD == 17 else _NAMES, 1)
        unique = _id(self.seed, "upload", self.place)
        return upload_key(_user(self.seed, self._project), name, unique, self._one_of(_EXTENSIONS, 2))

    @cached_property
    def staged_key(self) -> str | None:
        return staged_key(self.id) if self.status == "ready" and not self._without_staged else None

    def object_keys(self) -> Iterator[str]:
        """The keys of its objects; the application has removed those of a soft-deleted image."""
        if not self.deleted:
            yield self.original_key
            if self.staged_key:
                yield self.staged_key

    def columns(self, bucket: str, endpoint: str) -> tuple[Any, ...]:
        """Its row, in the order of IMAGE_COLUMNS."""
        made = _EPOCH + timedelta(seconds=self._number(_SPAN, 3))
        ready = self.status == "ready"
        took = 4_000 + self._number(30_000, 4) if ready else None
        ended = made if self.status == "queued" else made + timedelta(minutes=2)
        return (
            self.id,
            _id(self.seed, "project", self._project),
            self._original_url(bucket, endpoint) if self.shared is None else None,
            self._staged_url(bucket, endpoint) if self.staged_key else None,
            self._one_of(_ROOMS, 5),
            self._one_of(_STYLES, 6),
            self._number(2**31, 7) if ready else None,
            self.status,
            self._one_of(_ERRORS, 8) if self.status == "error" else None,
            made,
            ended,
            "0.0390" if ready else None,
            "staging-v2" if ready else None,
            took,
            self.id[:23] if ready else None,
            ended + timedelta(days=1) if self.deleted else None,
            "bright, tidy, no people" if ready else None,
            None if self.shared is None else _id(self.seed, "original", self.shared),
        )

    @property
    def _without_staged(self) -> bool:
        return self.place % WITHOUT_STAGED == 7

    @property
    def _project(self) -> int:
        return self.place // _IMAGES

    def _original_url(self, bucket: str, endpoint: str) -> str:
        luck = self._number(100, 9)
        if luck < 75:
            return path_style(self.original_key, bucket, endpoint)
        if luck < 80:
            return f"{path_style(self.original_key, bucket, endpoint)}?{_PRESIGNED}"
        if luck < 95:
            return _vendor_url(self.original_key, bucket, luck)
        return f"s3://{bucket}/{self.original_key}"

    def _staged_url(self, bucket: str, endpoint: str) -> str:
        luck = self._number(100, 10)
        if luck < 90:
            return staged_url(self.staged_key, bucket)
        if luck < 95:
            return path_style(self.staged_key, bucket, endpoint)
        return _vendor_url(self.staged_key, bucket, luck)

    @cached_property
    def _draws(self) -> tuple[int, ...]:
        return _SIXTEEN.unpack(hashlib.blake2b(f"{self.seed}/{self.place}".encode()).digest())

    def _number(self, below: int, draw: int) -> int:
        """One of the 16 independent draws of this image, as a number below a limit."""
        return self._draws[draw] % below

    def _one_of(self, choices: Sequence[Any], draw: int) -> Any:
        return choices[self._number(len(choices), draw)]


def users(seed: int, images: int) -> Iterator[tuple[Any, ...]]:
    """The rows of the users who own the projects of so many images."""
    for user in range(-(-images // (_IMAGES * _PROJECTS))):
        user_id = _id(seed, "user", user)
        yield user_id, f"auth0|{user_id[:23]}", _EPOCH


def projects(seed: int, images: int) -> Iterator[tuple[Any, ...]]:
    """The rows of the projects of so many images."""
    for project in range(-(-images // _IMAGES)):
        yield _id(seed, "project", project), _user(seed, project), f"Listing {project + 1}", _EPOCH


def images(seed: int, number: int) -> Iterator[Invented]:
    """The first images of a seed."""
    return (Invented(seed, place) for place in range(number))


def originals(images: Iterable[Invented]) -> Iterator[tuple[Any, ...]]:
    """The rows of the originals that images share; deleted ones no longer count as a reference."""
    references: Counter[tuple[int, int]] = Counter()
    for image in images:
        if image.shared is not None:
            references[image.seed, image.shared] += not image.deleted
    for (seed, number), count in references.items():
        key = _shared_key(seed, number)
        content = hashlib.sha256(key.encode()).hexdigest()
        mime_type = _MIME_TYPES[key[key.rindex(".") :]]
        yield _id(seed, "original", number), content, key, 400_000 + number, mime_type, count, _EPOCH


def _shared_key(seed: int, number: int) -> str:
    user = _user(seed, number * _SHARED * _SHARING // _IMAGES)
    extension = _EXTENSIONS[number % len(_EXTENSIONS)]
    return upload_key(user, _NAMES[number % len(_NAMES)], _id(seed, "shared", number), extension)


@lru_cache(maxsize=1_024)
def _user(seed: int, project: int) -> str:
    return _id(seed, "user", project // _PROJECTS)


def _id(seed: int, kind: str, number: int) -> str:
    """A UUID as text, which is what keys are made of and COPY sends."""
    digits = hashlib.blake2b(f"{seed}/{kind}/{number}".encode(), digest_size=16).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
