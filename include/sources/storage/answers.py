"""What is read of the store's answers. Only that an object is there, or not, comes into `images`."""

from collections.abc import Mapping, Sequence
from typing import Any

from include.api.bucket import Way
from include.sources.answer_census import AnswerCensus
from include.sources.base import ReadAnswer

# The headers with the application's own metadata. Their names are the application's, so they are counted as one.
METADATA = "x-amz-meta-"
REST = "a check asks only whether the object is there and has content"

ANSWERS = (
    ReadAnswer(
        "an object's own address (HEAD)",
        read={
            "etag": "an answer without it is not the store's",
            "content-length": "0 is an object without content",
            "x-amz-delete-marker": "the object can be restored",
        },
        ignored={
            "last-modified": "an image is checked by the application's own time of change",
            "content-type": "the content is not checked",
            "x-amz-version-id": "an image is about the newest version",
            f"{METADATA}*": "the application's own; it may name people",
        },
        rest=REST,
        counted_as=Way.HEAD,
        enumerations=("x-amz-storage-class",),
    ),
    ReadAnswer(
        "an object in the bucket's listing (Contents of ListObjectsV2)",
        read={"Key": "the object is there", "Size": "0 is an object without content"},
        ignored={
            "ETag": "the content is not checked",
            "LastModified": "an image is checked by the application's own time of change",
            "StorageClass": "an object of any class is there",
            "Owner": "personal data that no check needs",
        },
        rest=REST,
        counted_as=Way.LIST,
        types={"Key": "text", "Size": "text"},
        enumerations=("StorageClass",),
    ),
    ReadAnswer(
        "what stands around the objects of the bucket's listing (ListObjectsV2)",
        read={
            "Name": "the page is of the bucket that was asked for",
            "Prefix": "the page is of the prefix that was asked for",
            "StartAfter": "the page begins where it was asked to",
            "ContinuationToken": "the page goes on where it was asked to",
            "IsTruncated": "more pages follow",
            "NextContinuationToken": "leads to the next page",
            "KeyCount": "the page has all keys that it counts",
            "EncodingType": "how keys are written",
        },
        ignored={"MaxKeys": "the page says by its tokens whether more follows"},
        rest="they describe the page, and no object",
    ),
)


def count(census: AnswerCensus, way: Way, objects: Sequence[Mapping[str, Any]]) -> None:
    """Count what an answer shows of objects."""
    census.count(
        way,
        [{f"{METADATA}*" if name.startswith(METADATA) else name: each[name] for name in each} for each in objects],
    )
