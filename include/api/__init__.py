"""The HTTP side: a client that keeps its patience, paginators, and errors sorted by what to do about them."""
