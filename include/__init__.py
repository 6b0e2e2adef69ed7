"""All that does not need Airflow: APIs, sources, the warehouse and its evidence, and the simulators."""
