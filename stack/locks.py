"""Whether the locks are what pyproject.toml asks for: `python -m stack.locks`."""

import re
import sys
import tomllib
from itertools import chain

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stack.settings import REPOSITORY


def pins(text: str) -> dict[str, str]:
    """Return the version of each package in a lock, by its name."""
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)}


def problems(project: str, lock: str, runtime: str) -> list[str]:
    """Return a line for each contradiction between pyproject.toml and the two requirements files, given as texts."""
    declared = tomllib.loads(project)
    needed = {
        "requirements.txt": [*declared["project"]["dependencies"], *declared["dependency-groups"]["celery"]],
        "requirements.lock": [
            *declared["project"]["dependencies"],
            *chain(*declared["project"].get("optional-dependencies", {}).values()),
            *chain(*declared["dependency-groups"].values()),
        ],
    }
    locked = {"requirements.txt": pins(runtime), "requirements.lock": pins(lock)}
    found = []
    for file, requirements in needed.items():
        for requirement in map(Requirement, requirements):
            version = locked[file].get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version):
                found.append(f"{file} has {requirement.name} {version}, pyproject.toml wants {requirement.specifier}")
    for name, version in locked["requirements.txt"].items():
        if locked["requirements.lock"].get(name) != version:
            found.append(f"requirements.txt has {name} {version}, which isn't requirements.lock's")
    return found


def main() -> int:
    names = ("pyproject.toml", "requirements.lock", "requirements.txt")
    found = problems(*[(REPOSITORY / name).read_text() for name in names])
    for line in found:
        print(f"{line}: run `make lock`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
