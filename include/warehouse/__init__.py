"""The warehouse: tables, staging, comparison, merge with audit, rollback, fence and rate limits."""
