"""Mirrors, the most common kind of source: an API whose lists are copied into tables of the warehouse."""
