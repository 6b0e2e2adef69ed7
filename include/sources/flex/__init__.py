"""Flex: the crew calls of our jobs kept equal to our assignments.

The warehouse is the source and Flex the copy. Its API adds a line as often as it is asked to, so every write is
journalled before it is sent, made once, and proven by a fresh read; what nobody knows the outcome of is left to a
person.
"""

from include.sources.flex.source import Flex

SOURCE = Flex()
