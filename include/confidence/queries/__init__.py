"""Queries of the evidence in the warehouse, for pages and endpoints. They only read."""
