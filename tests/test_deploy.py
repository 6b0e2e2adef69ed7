"""What docs/deploy.md and deploy/ name exists: settings of Airflow, arguments of a bundle, keys of a chart, rights."""

import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from airflow._shared.module_loading import import_string
from airflow.configuration import conf
from airflow.providers.fab.www.security import permissions

from include.sources.installed import installed_sources
from stack import roles
from stack.settings import REPOSITORY
from tests.documented import snippet

PAGE = (REPOSITORY / "docs" / "deploy.md").read_text()
VALUES = yaml.safe_load((REPOSITORY / "deploy" / "helm-values.yaml").read_text())
ROLES = json.loads((REPOSITORY / "deploy" / "fab-roles.json").read_text())

# Keys of the values of Airflow's chart 1.22 that we set. Below the last of each, the chart takes what one gives.
CHART = {
    "airflowVersion",
    "apiSecretKeySecretName",
    "config",
    "dags.gitSync.enabled",
    "dags.persistence.enabled",
    "data.metadataSecretName",
    "env",
    "executor",
    "extraEnvFrom",
    "fernetKeySecretName",
    "images.airflow.repository",
    "images.airflow.tag",
    "jwtSecretName",
    "postgresql.enabled",
    "workers.replicas",
    "workers.resources",
}


def is_setting(section: str, key: str) -> bool:
    """Whether Airflow, or a provider that is installed, has the setting."""
    return key in conf.configuration_description.get(section, {"options": {}})["options"]


def settings_on_the_page() -> list[tuple[str, str]]:
    by_variable = re.findall(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", PAGE)
    by_name = re.findall(r"`\[(\w+)\] (\w+)`", PAGE)
    return [(section.lower(), key.lower()) for section, key in [*by_variable, *by_name]]


@pytest.mark.parametrize(("section", "key"), sorted(set(settings_on_the_page())))
def test_settings_exist(section: str, key: str):
    assert is_setting(section, key)


def test_arguments_of_the_git_bundle_exist():
    [bundle] = json.loads(snippet("deploy.md", "json"))
    kind = import_string(bundle["classpath"])
    known = {name for each in kind.__mro__ for name in inspect.signature(each.__init__).parameters}
    assert set(bundle) == {"name", "classpath", "kwargs"}
    assert set(bundle["kwargs"]) <= known
    assert (REPOSITORY / bundle["kwargs"]["subdir"] / "warehouse_migrate.py").exists()


def keys(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        name = f"{path}{key}"
        if isinstance(value, dict) and name not in CHART:
            yield from keys(value, f"{name}.")
        else:
            yield name


def test_values_of_the_chart():
    assert set(keys(VALUES)) == CHART
    settings = [(section, key) for section, options in VALUES["config"].items() for key in options]
    assert [setting for setting in settings if not is_setting(*setting)] == []
    assert import_string(VALUES["config"]["core"]["auth_manager"])


def test_containers_of_the_chart_are_those_of_the_image():
    docker = (REPOSITORY / "Dockerfile").read_text()
    variables = {variable["name"]: variable["value"] for variable in VALUES["env"]}
    assert f"ENV PYTHONPATH={variables['PYTHONPATH']}\n" in docker
    assert f"FROM apache/airflow:{VALUES['airflowVersion']}-" in docker
    assert installed_sources(variables)
    for secret in [source["secretRef"]["name"] for source in yaml.safe_load(VALUES["extraEnvFrom"])]:
        assert f"create secret generic {secret} " in PAGE


def test_image_has_the_roles_that_its_commands_import():
    [file] = set(re.findall(r"airflow roles import (\S+)", PAGE))
    assert f" {file} {file.rpartition('/')[0]}/\n" in (REPOSITORY / "Dockerfile").read_text()
    assert f"!{file.partition('/')[0]}" in (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert (REPOSITORY / file).exists()


def test_permissions_exist_and_the_service_user_has_no_others():
    resources = [value for name, value in vars(permissions).items() if name.startswith("RESOURCE_")]
    actions = {value for name, value in vars(permissions).items() if name.startswith("ACTION_")}
    assert [role["resource"] for role in ROLES if role["resource"] not in resources] == []
    assert {action for role in ROLES for action in role["action"].split(",")} <= actions
    service = {role["resource"]: role["action"] for role in ROLES if role["name"] == "Sync Service"}
    assert service == {
        "DAG Runs": "can_read",
        "DAGs": "can_read",
        "Pools": "can_create,can_edit,can_read",
        "Task Instances": "can_read",
    }


def test_file_of_the_roles_has_those_that_are_made():
    [file] = re.findall(r'^ *(\{"superuser".+?\}\})$', PAGE, re.DOTALL | re.MULTILINE)
    assert set(json.loads(file)["passwords"]) == {*roles.ALL} - {roles.APPLICATION}


def test_wheel_has_the_name_that_is_told():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f"/{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl\n" in PAGE
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in PAGE


def test_each_role_is_told():
    for role in {role["name"] for role in ROLES}:
        assert f"| `{role}` |" in PAGE
