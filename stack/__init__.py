"""The embedded stack: Postgres, Airflow and the simulators, started and ended as one."""
