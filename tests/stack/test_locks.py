import pytest

from stack.locks import problems

PROJECT = """
[project]
dependencies = ["Some_Package>=2"]
[project.optional-dependencies]
login = ["login-page>=1"]
[dependency-groups]
celery = ["queue==1.*"]
dev = ["checker>=3"]
"""
RUNTIME = "some-package==2.1 \\\n    --hash=sha256:00\nqueue==1.5 ; python_version < '3.12' \\\n    --hash=sha256:00\n"
LOCK = RUNTIME + "checker==3.0\nlogin-page==1.2\n"


def test_locks_that_fit():
    assert problems(PROJECT, LOCK, RUNTIME) == []


@pytest.mark.parametrize(
    ("project", "lock", "runtime", "told"),
    [
        (PROJECT.replace(">=2", ">=2.2"), LOCK, RUNTIME, "Some_Package 2.1, pyproject.toml wants >=2.2"),
        (PROJECT, RUNTIME, RUNTIME, "requirements.lock has checker None"),
        (PROJECT.replace("page>=1", "page>=2"), LOCK, RUNTIME, "requirements.lock has login-page 1.2"),
        (PROJECT, LOCK, RUNTIME.replace("==1.5", "==1.4"), "queue 1.4, which isn't requirements.lock's"),
        (PROJECT, LOCK, "some-package==2.1\n", "requirements.txt has queue None"),
    ],
)
def test_locks_that_do_not_fit(project: str, lock: str, runtime: str, told: str):
    assert told in "\n".join(problems(project, lock, runtime))
