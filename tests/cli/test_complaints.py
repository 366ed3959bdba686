"""The SDK's complaints, in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.cli.complaints import tell


def _nested(fields: object) -> str:
    """As the SDK puts it: JSON in a message in JSON in a message."""
    inner = (
        f"Validation for CommandJobSchema failed:\n\n {json.dumps(fields, indent=2)} \n\n If you are trying to "
        "configure a job that is not of type command, please specify the type.\n\nVisit this link to refer to it."
    )
    errors = [{"message": inner, "path": "*", "value": None, "location": "job.yml"}]
    return f"\x1b[31mValidation failed:\n {json.dumps({'result': 'Failed', 'errors': errors})}\n\x1b[39m"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"resources": {"instance_count": ["Not a valid integer."]}},
            "resources.instance_count: Not a valid integer.",
        ),
        (
            {"command": ["Missing data for required field."], "comand": ["Unknown field."]},
            "The following is not right:\n"
            "  - command: Missing data for required field.\n"
            "  - comand: Unknown field. Did you mean 'command'?",
        ),
        (
            {"code": [{"_schema": ["Can't find directory or file: /x."]}, {"_schema": ["Not a valid URL."]}]},
            "code: Can't find directory or file: /x.",
        ),
        (
            {
                "environment": [
                    {"_schema": ["Environment schema data cannot be a string"]},
                    {"_schema": ["Use a name."]},
                ]
            },
            "environment: Use a name.",
        ),
        ({"inputs": {"q": {"value": {"type": ["no"]}}}}, "inputs.q.type: no"),
    ],
)
def test_fields(fields: object, told: str) -> None:
    assert tell(_nested(fields)) == told


def test_a_plain_error_of_a_field() -> None:
    document = {"result": "Failed", "errors": [{"message": "Not found compute", "path": "compute"}]}
    assert tell(json.dumps(document)) == "compute: Not found compute"


def test_numbered_details() -> None:
    message = "\n\n1) Resource was not found.\n\nDetails: \n\n\x1b[31m(x) Asset e does not exist in w.\x1b[39m\n\nResolutions: \nx"
    assert tell(message) == "Asset e does not exist in w."


def test_plain_words_stay() -> None:
    assert tell(" Unsupported job type: foo. \n\nVisit this link to see.\n") == "Unsupported job type: foo."


@given(st.text())
def test_anything_can_be_told(message: str) -> None:
    assert isinstance(tell(message), str)
