"""Bounds the size and the time of each answer to a boto3 client, as `transport` does for the other APIs."""

from botocore.awsrequest import AWSHTTPConnectionPool, AWSHTTPSConnectionPool
from botocore.client import BaseClient

from include.api.transport import LARGEST_ANSWER_BYTES, TimedResponse, pools_by_scheme


class _BoundedResponse(TimedResponse):
    # boto3 unpacks nothing, so this bounds what is kept in memory as well.
    most = LARGEST_ANSWER_BYTES


POOLS = pools_by_scheme(AWSHTTPConnectionPool, AWSHTTPSConnectionPool, _BoundedResponse)


def bound_answers(client: BaseClient) -> None:
    """Make a boto3 client that was not used yet end an answer that is too large or too slow.

    boto3 then raises a ConnectionClosedError or a ReadTimeoutError, after as many attempts as it is configured for.
    """
    # boto3 has no setting for it. The session and its managers of proxies share this dict.
    client._endpoint.http_session._pool_classes_by_scheme.update(POOLS)
