"""The compatibility table says what is so."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from azure.ai.ml import MLClient, operations

from tests import compatibility
from tests.compatibility import OTHERS, SDK, Row

ROOT = Path(__file__).parent.parent.parent
CLASSES = {
    "workspaces": "WorkspaceOperations",
    "datastores": "DatastoreOperations",
    "environments": "EnvironmentOperations",
    "data": "DataOperations",
    "models": "ModelOperations",
    "components": "ComponentOperations",
    "registries": "RegistryOperations",
    "compute": "ComputeOperations",
    "jobs": "JobOperations",
    "schedules": "ScheduleOperations",
}


def rows() -> list[Row]:
    return [row for groups in (SDK, OTHERS) for group in groups.values() for row in group]


def test_the_tests_that_are_named_exist() -> None:
    defined: dict[str, set[str]] = {}
    for row in rows():
        for test in row.tests:
            file, _, name = test.partition("::")
            if file not in defined:
                tree = ast.parse((ROOT / file).read_text())
                functions = (ast.FunctionDef, ast.AsyncFunctionDef)
                defined[file] = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
            assert name in defined[file], test


@pytest.mark.parametrize("group", SDK)
def test_every_method_of_the_sdk_is_in_the_table(group: str) -> None:
    methods = {
        name
        for name, value in inspect.getmembers(getattr(operations, CLASSES[group]), callable)
        if not name.startswith("_")
    }
    listed = {row.call.partition("(")[0] for row in SDK[group]} - {"MLClient"}
    assert methods == listed


def test_every_group_of_the_sdk_is_in_the_table() -> None:
    groups = {name for name, value in inspect.getmembers(MLClient) if isinstance(value, property)}
    about_itself = {"subscription_id", "resource_group_name", "workspace_name"}
    assert groups - about_itself == set(SDK) | set(compatibility.NOT_YET)


def test_the_document_is_up_to_date() -> None:
    assert compatibility.DOCUMENT.read_text() == compatibility.render(), "run: python -m tests.compatibility"
