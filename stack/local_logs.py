"""A command of Airflow whose log server listens on the loopback interface only.

Airflow's own listen on all interfaces, and it has no setting for that.
"""

from importlib import import_module

from stack import command
from stack.ports import LOOPBACK


def stay_local() -> None:
    """Let the log servers that this process starts listen on the loopback interface."""
    uvicorn = import_module("airflow.utils.serve_logs.core").uvicorn
    run = uvicorn.run
    uvicorn.run = lambda app, **options: run(app, **options | {"host": LOOPBACK})


if __name__ == "__main__":
    stay_local()
    command.run()
