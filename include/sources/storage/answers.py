"""What is read of the store's answers. Only that an object is there, or not, comes into `images`."""

from include.sources.base import ReadAnswer

REST = "a check asks only whether the object is there and has content"

ANSWERS = (
    ReadAnswer(
        "an object's own address (HEAD)",
        read={
            "ETag": "an answer without it is not the store's",
            "Content-Length": "0 is an object without content",
            "x-amz-delete-marker": "the object can be restored",
        },
        ignored={
            "Last-Modified": "an image is checked by the application's own time of change",
            "Content-Type": "the content is not checked",
            "x-amz-version-id": "an image is about the newest version",
            "x-amz-meta-*": "the application's own; it may name people",
        },
        rest=REST,
    ),
    ReadAnswer(
        "a page of the bucket's listing (ListObjectsV2)",
        read={
            "Contents.Key": "the object is there",
            "Contents.Size": "0 is an object without content",
            "Name": "the page is of the bucket that was asked for",
            "Prefix": "likewise of the prefix",
            "StartAfter": "likewise of the place",
            "ContinuationToken": "likewise of the place",
            "IsTruncated": "more pages follow",
            "NextContinuationToken": "leads to the next page",
            "KeyCount": "the page has all keys that it counts",
            "EncodingType": "how keys are written",
        },
        ignored={
            "Contents.ETag": "the content is not checked",
            "Contents.LastModified": "an image is checked by the application's own time of change",
            "Contents.StorageClass": "an object of any class is there",
            "Contents.Owner": "personal data that no check needs",
            "MaxKeys": "the page says by its tokens whether more follows",
        },
        rest=REST,
    ),
)
