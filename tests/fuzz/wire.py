"""Changes answers on their way to the clients of this process, between the HTTP library and what reads it.

So no time is lost on a server between; what only HTTP shows is tested in tests/api/test_transport.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from botocore.httpsession import URLLib3Session
from requests.adapters import HTTPAdapter

# Method, URL and body of an answer; returns the body that arrives.
Change = Callable[[str, str, bytes], bytes]
# Where the tests steer a simulator.
CONTROL = "/_control/"


@contextmanager
def changing(change: Change) -> Iterator[None]:
    """Within the block every client of requests and of boto3 gets the bodies that `change` makes."""
    send, send_to_store = HTTPAdapter.send, URLLib3Session.send

    def altered(self: HTTPAdapter, request: Any, *args: Any, **options: Any) -> Any:
        response = send(self, request, *args, **options)
        if CONTROL not in request.url:
            response._content = change(request.method, request.url, response.content)
        return response

    def altered_by_store(self: URLLib3Session, request: Any) -> Any:
        response = send_to_store(self, request)
        if request.method != "HEAD":
            response._content = change(request.method, request.url, response.content)
        return response

    with patch.object(HTTPAdapter, "send", altered), patch.object(URLLib3Session, "send", altered_by_store):
        yield
