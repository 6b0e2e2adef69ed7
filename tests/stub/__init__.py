"""A stub of any vendor's API, made from what a mirror declares. It serves rows that it keeps in memory.

It takes requests and answers apart by itself, and calls nothing of the client: neither a paginator's reading, nor the
mirror's look-ups. A vendor that asks in a way which the stub doesn't know raises `NotServed` before any test begins.
"""

from tests.stub.declared import NotServed
from tests.stub.server import Fault, Stub
from tests.stub.store import Store, WrongExamples

__all__ = ["Fault", "NotServed", "Store", "Stub", "WrongExamples"]
