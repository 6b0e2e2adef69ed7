"""How Airflow runs the sources: operators, hooks, notifications, and the pages in its UI."""
