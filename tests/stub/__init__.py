"""A stub of any vendor's API, made from what a mirror declares. It serves rows that it keeps in memory.

It takes requests and answers apart by itself, and calls nothing of the client: neither a paginator's reading, nor the
mirror's look-ups. What it can't serve it refuses when it is made: `NotServed` for an API that it doesn't know,
`WrongExamples` and `WrongLookup` for what its author has to mend.
"""

from tests.stub.declared import NotServed, WrongLookup, require_served
from tests.stub.server import Fault, Stub
from tests.stub.store import Store, WrongExamples

__all__ = ["Fault", "NotServed", "Store", "Stub", "WrongExamples", "WrongLookup", "require_served"]
