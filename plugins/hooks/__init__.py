"""Connections of Airflow, opened: sources, the warehouse, and Airflow's own REST API."""
