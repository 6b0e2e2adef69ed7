"""The tasks of the DAGs, one module each."""
