"""A client whose vendor's answers a test changes on their way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from include.api.client import ApiClient
from include.api.errors import ApiError
from include.api.request import Answer, Request
from include.sources.mirror.context import MirrorContext

Twist = Callable[[Request, Any], Any]


class Twisted(ApiClient):
    """Passes each answer's data through `twist`, which may raise an ApiError in its place."""

    twist: Twist = staticmethod(lambda request, data: data)

    def _exchange(self, request: Request) -> Answer | ApiError:
        answer = super()._exchange(request)
        if isinstance(answer, ApiError):
            return answer
        try:
            return replace(answer, data=self.twist(request, answer.data))
        except ApiError as error:
            return error


@contextmanager
def twisted(context: MirrorContext, twist: Twist) -> Iterator[MirrorContext]:
    """The context with a client whose answers are twisted."""
    client = context.client
    with Twisted(
        client.name,
        client._base_url,
        headers=context.source.authorize(client._session.headers["Authorization"].removeprefix("Bearer ")),
        timeout=(2, 2),
        attempts=3,
        backoff=(0.01, 0.02),
    ) as liar:
        liar.twist = twist
        yield replace(context, client=liar)


def once(twist: Twist, path: str) -> Twist:
    """The twist for the first answer to a request whose path begins so; all others stay as they are."""
    left = [1]

    def single(request: Request, data: Any) -> Any:
        if request.path.startswith(path) and left:
            left.pop()
            return twist(request, data)
        return data

    return single


def always(twist: Twist, path: str, **params: Any) -> Twist:
    """The twist for each answer to a request whose path begins so and that has these params."""

    def each(request: Request, data: Any) -> Any:
        asked = request.path.startswith(path) and params.items() <= dict(request.params).items()
        return twist(request, data) if asked else data

    return each
