"""Search of registered models and their versions, in memory: a workspace has few of them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from noriba.tracking.filters import Comparison, Order, parse_filter, parse_order
from noriba.tracking.languages import MODEL_VERSIONS, REGISTERED_MODELS
from noriba.tracking.matching import Fields, matches, ordered
from noriba.tracking.registry import all_models_in, all_versions_in
from noriba.tracking.registry_rows import ModelVersion, RegisteredModel

PROMPT_TAG = "mlflow.prompt.is_prompt"
"""MLflow keeps prompts as registered models with this tag; they are found only when they are asked for."""


def search_models_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    filter_text: str | None,
    order_by: list[str] | None,
    limit: int,
    offset: int,
) -> tuple[list[RegisteredModel], bool]:
    """The registered models that match, by name unless ordered, and whether there are more. Raises BadRequest."""
    comparisons = parse_filter(filter_text, REGISTERED_MODELS)
    orders = parse_order(order_by, REGISTERED_MODELS)
    wanted, comparisons = _prompts(comparisons)

    def fields(model: RegisteredModel) -> Fields:
        return {"attribute": {"name": model.name}, "tag": model.tags}

    found = [
        model
        for model in all_models_in(connection, workspace_id)
        if _is_prompt(model.tags) == wanted and matches(fields(model), comparisons)
    ]
    found = ordered(
        found,
        _with(orders, Order("attribute", "name", True)),
        lambda model: {
            "name": model.name,
            "creation_timestamp": model.created_ms,
            "last_updated_timestamp": model.updated_ms,
        },
    )
    return found[offset : offset + limit], len(found) > offset + limit


def search_versions_in(
    connection: sa.Connection,
    workspace_id: str,
    *,
    filter_text: str | None,
    order_by: list[str] | None,
    limit: int,
    offset: int,
) -> tuple[list[ModelVersion], bool]:
    """The model versions that match, those changed last first unless ordered, and whether there are more. Raises
    BadRequest."""
    comparisons = parse_filter(filter_text, MODEL_VERSIONS)
    default = ["last_updated_timestamp DESC", "name ASC", "version_number DESC"]
    orders = parse_order(order_by or default, MODEL_VERSIONS)
    wanted, comparisons = _prompts(comparisons)
    name = next(
        (c.value for c in comparisons if (c.kind, c.key, c.operator) == ("attribute", "name", "=")), None
    )

    def fields(version: ModelVersion) -> Fields:
        number = _number(version.version)
        attributes = {
            "name": version.name,
            "run_id": version.run_id,
            "source_path": version.source,
            "version_number": number if number else None,
        }
        return {"attribute": attributes, "tag": version.tags}

    versions = all_versions_in(connection, workspace_id, str(name) if name is not None else None)
    found = [
        version
        for version in versions
        if _is_prompt(version.tags) == wanted and matches(fields(version), comparisons)
    ]
    found = ordered(
        found,
        _with(orders, Order("attribute", "name", True), Order("attribute", "version_number", False)),
        lambda version: {
            "name": version.name,
            "version_number": (_number(version.version), version.version),
            "creation_timestamp": version.created_ms,
            "last_updated_timestamp": version.updated_ms,
        },
    )
    return found[offset : offset + limit], len(found) > offset + limit


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0


def _with(orders: Sequence[Order], *last: Order) -> list[Order]:
    """The orders, made total by others."""
    keys = {order.key for order in orders}
    return [*orders, *(order for order in last if order.key not in keys)]


def _is_prompt(tags: dict[str, str]) -> bool:
    return tags.get(PROMPT_TAG, "").lower() == "true"


def _prompts(comparisons: list[Comparison]) -> tuple[bool, list[Comparison]]:
    """Whether prompts are asked for, and the other conditions."""
    about = [c for c in comparisons if c.kind == "tag" and c.key == PROMPT_TAG]
    wanted = any((c.operator, str(c.value).lower()) in (("=", "true"), ("!=", "false")) for c in about)
    return wanted, [c for c in comparisons if c not in about]
