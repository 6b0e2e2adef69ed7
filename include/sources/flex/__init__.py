"""Flex: the crew calls of our jobs kept equal to our assignments.

The warehouse is the source and Flex the copy. A repeated request to add a line adds another line. So every write is
journalled before it is sent, sent once, and proven by a fresh read. If the outcome of a write stays unknown, a person
decides.
"""

from include.sources.flex.source import Flex

SOURCE = Flex()
