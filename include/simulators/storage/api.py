"""The vendor's API over one bucket: who may do what, and what is answered."""

from include.simulators.storage import listing, signature
from include.simulators.storage.bucket import Bucket
from include.simulators.storage.config import Config
from include.simulators.storage.faults import Fault
from include.simulators.storage.objects import Object, Objects
from include.simulators.storage.protocol import USUAL_CODES, Answer, Refused, Request, error

_BEYOND = "A header or query you provided implies functionality that is not implemented."
_CONDITIONS = {
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
    "x-amz-copy-source",
}


def answer(bucket: Bucket, request: Request, fault: Fault | None = None) -> Answer:
    """Carry the request out, or say why not; a fault of a kind that spoils the content is worked in."""
    try:
        _check(bucket.config, request)
        return _carried_out(bucket, request, fault)
    except Refused as refused:
        return error(request, refused, minio=bucket.config.minio)


def fault_answer(request: Request, fault: Fault, config: Config) -> Answer:
    """Return the S3 error that a fault asks for."""
    code = fault.code or USUAL_CODES.get(fault.status, "InternalError")
    return error(request, Refused(code, "Ordered."), fault.status, minio=config.minio)


def _check(config: Config, request: Request) -> None:
    """Refuse in the vendor's order: path, signature, bucket, region, rights."""
    try:
        request.key.encode()
    except UnicodeEncodeError:
        raise Refused("InvalidURI", "Couldn't parse the specified URI.") from None
    region = signature.verify(request, {config.access_key: config.secret_key})
    if request.bucket == "":
        raise Refused("NotImplemented", "ListBuckets is not implemented.")
    if request.bucket != config.bucket:
        raise Refused("NoSuchBucket", "The specified bucket does not exist")
    if region != config.region:
        raise Refused(
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint.",
            {"x-amz-bucket-region": config.region},
        )
    if request.operation in ("list", "bucket") and not config.may_list:
        raise Refused("AccessDenied", "Access Denied")
    if request.operation in ("head", "get") and not config.may_read:
        raise Refused("AccessDenied", "Access Denied")


def _carried_out(bucket: Bucket, request: Request, fault: Fault | None) -> Answer:
    if request.operation != "list" and _goes_beyond(request):
        raise Refused("NotImplemented", _BEYOND)
    kind = fault.kind if fault else None
    objects = _told(bucket.objects, fault)
    match request.operation:
        case "list":
            page = listing.page(
                request,
                objects,
                ignore_start_after=kind in ("ignore_start_after", "first_page"),
                ignore_token=kind == "first_page",
            )
            return listing.framed(page, fault.fields) if kind == "frame" else page
        case "bucket":
            return Answer(200, b"", {"x-amz-bucket-region": bucket.config.region}, None)
        case "head" | "get":
            return _object(bucket.config, objects.get(request.key), request, deleted=kind == "delete_marker")
        case "put":
            return _put(bucket, request)
        case "delete":
            bucket.objects.delete([request.key])
            return Answer(204)
    raise Refused("NotImplemented", _BEYOND)


def _goes_beyond(request: Request) -> bool:
    """Whether header or query ask for what this server would do wrong by ignoring it: versions, conditions, copies."""
    asked = {name for name, _ in request.parameters if not name.startswith("X-Amz-")} - {"x-id"}
    return bool(asked or _CONDITIONS & request.headers.keys())


def _told(objects: Objects, fault: Fault | None) -> Objects:
    """The objects that the answer speaks of."""
    match fault:
        case Fault(kind="hide"):
            return objects.without(fault.keys or objects.keys())
        case Fault(kind="show"):
            return objects.and_also(fault.keys)
    return objects


def _object(config: Config, found: Object | None, request: Request, *, deleted: bool) -> Answer:
    if deleted:
        raise Refused("NoSuchKey", "The specified key does not exist.", {"x-amz-delete-marker": "true"})
    if found:
        return Answer(200, b"" if request.method == "HEAD" else found.body, found.headers)
    if not config.may_list:
        raise Refused("AccessDenied", "Access Denied")
    raise Refused("NoSuchKey", "The specified key does not exist.")


def _put(bucket: Bucket, request: Request) -> Answer:
    content = Object(request.body, request.headers.get("content-type", "binary/octet-stream"))
    bucket.objects.put([request.key], content)
    return Answer(200, b"", {"etag": content.etag}, None)
