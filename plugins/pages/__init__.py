"""What people and their systems see of the sources: pages in Airflow's UI, and JSON endpoints beside them."""
