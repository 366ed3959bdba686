"""What of the clients' API works: the table in docs/wire-compatibility.md is made from here.

Every call names the tests that show it; tests/sdk/test_compatibility.py checks that those tests exist, that the table is
complete (each public method of the SDK's operations has a row) and that the document is up to date. Write it anew with:

    python -m tests.compatibility
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

DOCUMENT = Path(__file__).parent.parent / "docs" / "wire-compatibility.md"

WS = "{WS}"
LOC = "{LOC}"
REG = "{REG}"


class Row(NamedTuple):
    """One call of a client. Without ``tests`` it is not supported; ``note`` says what to know."""

    call: str
    request: str
    tests: tuple[str, ...] = ()
    note: str = ""


def sdk(file: str, *tests: str) -> tuple[str, ...]:
    """Tests of one file in tests/sdk."""
    return tuple(f"tests/sdk/test_{file}.py::test_{test}" for test in tests)


def rest(file: str, *tests: str) -> tuple[str, ...]:
    """Tests of one file in tests/rest."""
    return tuple(f"tests/rest/test_{file}.py::test_{test}" for test in tests)


ASSET = f"{WS}/{{kind}}/{{name}}/versions/{{version}}"
LATER = "not yet"

SDK: dict[str, list[Row]] = {
    "workspaces": [
        Row("get", f"GET {WS}", sdk("workspaces", "the_first_workspace_is_there")),
        Row("list", "GET …/workspaces (group, subscription)", sdk("workspaces", "workspaces_are_listed")),
        Row(
            "begin_create",
            "PUT …/deployments/{name}, PUT {WS}",
            sdk("workspaces", "a_workspace_is_created_updated_and_deleted")
            + rest("workspaces", "a_workspace_from_birth_to_death"),
            "of the SDK's template the parameters are read; dependent resources are Noriba's own",
        ),
        Row("begin_update", f"PATCH {WS}", sdk("workspaces", "a_workspace_is_created_updated_and_deleted")),
        Row(
            "begin_delete",
            f"DELETE {WS}",
            sdk("workspaces", "a_workspace_is_created_updated_and_deleted")
            + rest("workspaces", "nothing_of_a_deleted_workspace_stays"),
            "refused while jobs run, and for the workspace that an installation starts with",
        ),
        Row("get_keys", f"POST {WS}/listKeys"),
        Row("begin_sync_keys", f"POST {WS}/resyncKeys"),
        Row("begin_diagnose", f"POST {WS}/diagnose"),
        Row("begin_provision_network", f"POST {WS}/provisionManagedNetwork"),
    ],
    "datastores": [
        Row("get", f"GET {WS}/datastores/{{name}}", sdk("datastores", "a_blob_container_with_a_key")),
        Row(
            "get(include_secrets=True)",
            f"POST {WS}/datastores/{{name}}/listSecrets",
            sdk("datastores", "a_blob_container_with_a_key", "a_signature_is_kept_secret"),
            "built-in ones give a signature that ends after expireAfterHours",
        ),
        Row(
            "get_default",
            f"GET {WS}/datastores?isDefault=true",
            sdk("datastores", "the_built_in_ones_are_there"),
        ),
        Row("list", f"GET {WS}/datastores", sdk("datastores", "the_built_in_ones_are_there")),
        Row(
            "create_or_update",
            f"PUT {WS}/datastores/{{name}}",
            sdk("datastores", "a_blob_container_with_a_key", "other_types_are_kept"),
            "jobs read AzureBlob and AzureDataLakeGen2; AzureFile, OneLake and HDFS are kept only",
        ),
        Row("delete", f"DELETE {WS}/datastores/{{name}}", sdk("datastores", "a_blob_container_with_a_key")),
        Row("mount", "-"),
    ],
    "environments": [
        Row(
            "create_or_update",
            f"PUT {ASSET}",
            sdk("environments", "an_image_is_registered_and_read_back", "a_conda_file_is_kept")
            + sdk(
                "environments",
                "a_build_context_is_uploaded",
                "versions_count_up_when_the_content_changes_only",
            ),
        ),
        Row("get", f"GET {ASSET}", sdk("environments", "an_image_is_registered_and_read_back")),
        Row(
            'get(label="latest")',
            "GET …/versions?$orderBy=createdtime desc&$top=1",
            sdk("registries", "the_latest_is_found"),
        ),
        Row(
            "list",
            "GET …/environments, …/versions",
            sdk("environments", "archived_versions_are_hidden_and_restored"),
        ),
        Row("archive", "PUT (isArchived)", sdk("environments", "archived_versions_are_hidden_and_restored")),
        Row("restore", "PUT (isArchived)", sdk("environments", "archived_versions_are_hidden_and_restored")),
        Row(
            "share",
            f"POST {REG}/import",
            sdk("registries", "an_environment_is_shared_with_its_build_context"),
        ),
    ],
    "data": [
        Row(
            "create_or_update",
            f"PUT {ASSET}",
            sdk(
                "data",
                "a_file_is_uploaded",
                "folders_end_with_a_slash",
                "an_mltable_is_uploaded",
                "addresses_are_kept",
            ),
        ),
        Row(
            "get",
            f"GET {ASSET}",
            sdk("data", "a_file_is_uploaded", "versions_count_up_and_latest_is_the_last_created"),
        ),
        Row(
            "list", "GET …/data, …/versions", sdk("data", "versions_count_up_and_latest_is_the_last_created")
        ),
        Row("archive", "PUT (isArchived)", sdk("data", "archived_data_is_hidden_and_restored")),
        Row("restore", "PUT (isArchived)", sdk("data", "archived_data_is_hidden_and_restored")),
        Row("share", f"POST {REG}/import", sdk("registries", "data_is_shared_and_used_by_a_job")),
        Row("import_data", f"PUT {WS}/jobs/{{name}}"),
        Row("list_materialization_status", f"GET {WS}/jobs"),
        Row("mount", "-"),
    ],
    "models": [
        Row(
            "create_or_update",
            f"PUT {ASSET}",
            sdk("models", "a_file_is_registered_and_downloaded", "a_path_in_a_datastore_is_a_model")
            + sdk("models", "what_a_job_logged_becomes_a_model"),
        ),
        Row("get", f"GET {ASSET}", sdk("models", "an_mlflow_model_has_flavors_and_is_downloaded")),
        Row(
            "download", "datastore and blobs", sdk("models", "an_mlflow_model_has_flavors_and_is_downloaded")
        ),
        Row("list", "GET …/models, …/versions", sdk("models", "versions_count_up", "stages_filter_and_stay")),
        Row("archive", "PUT (isArchived)", sdk("models", "stages_filter_and_stay")),
        Row("restore", "PUT (isArchived)", sdk("models", "stages_filter_and_stay")),
        Row(
            "share",
            f"POST {REG}/import",
            sdk("registries", "a_model_is_shared_and_outlives_its_workspace_version"),
        ),
        Row("package", f"POST {ASSET}/package"),
    ],
    "components": [
        Row(
            "create_or_update",
            f"PUT {ASSET}",
            sdk("components", "a_yaml_component_is_registered_and_read_back")
            + sdk("components", "versions_count_up_unless_nothing_changed")
            + sdk("components", "anonymous_components_are_made_once_and_not_listed"),
        ),
        Row("get", f"GET {ASSET}", sdk("components", "the_default_version_is_the_latest")),
        Row("list", "GET …/components, …/versions", sdk("components", "the_default_version_is_the_latest")),
        Row("archive", "PUT (isArchived)", sdk("components", "archived_components_are_hidden")),
        Row("restore", "PUT (isArchived)", sdk("components", "archived_components_are_hidden")),
        Row("download", "datastore and blobs", sdk("components", "a_component_is_downloaded_with_its_code")),
        Row("validate", "-", (), "on the client only"),
        Row("prepare_for_sign", "-", (), "on the client only"),
    ],
    "registries": [
        Row("get", "GET …/registries/{registry}", sdk("registries", "registries_are_resources")),
        Row("list", "GET …/registries", sdk("registries", "registries_are_resources")),
        Row("begin_create", "PUT …/registries/{registry}", (), "a registry begins with its first asset"),
        Row("begin_delete", "DELETE …/registries/{registry}"),
        Row(
            "MLClient(registry_name=…)",
            "GET …/discovery, then the calls above below {REG}",
            sdk(
                "registries",
                "curated_environments_are_listed",
                "a_model_is_registered_in_a_registry_and_downloaded",
            ),
            "`azureml` holds the curated environments and is read-only",
        ),
    ],
    "compute": [
        Row(
            "get",
            f"GET {WS}/computes/{{name}}",
            sdk("computes", "there_are_no_clusters_to_care_for"),
            "none exists",
        ),
        Row("list", f"GET {WS}/computes", sdk("computes", "there_are_no_clusters_to_care_for"), "empty"),
        Row("list_sizes", f"GET {LOC}/vmSizes", sdk("computes", "sizes_are_listed")),
        *(
            Row(name, f"… {WS}/computes/{{name}}")
            for name in (
                *("begin_attach", "begin_create_or_update", "begin_delete", "begin_restart", "begin_start"),
                *("begin_stop", "begin_update", "enable_sso", "list_nodes"),
            )
        ),
        Row("list_usage", f"GET {LOC}/usages"),
    ],
    "jobs": [
        Row(
            "create_or_update",
            f"PUT {WS}/jobs/{{name}}",
            sdk(
                "command_jobs",
                "inputs_of_every_kind_and_outputs_come_through",
                "several_nodes_know_their_ranks",
            )
            + sdk("seed_snippets", "a_snippet_runs_to_its_end"),
            "command jobs; sweep, pipeline, AutoML, Spark, fine-tuning are refused for now",
        ),
        Row("get", f"GET {WS}/jobs/{{name}}", rest("jobs", "a_job_comes_back_as_it_was_sent")),
        Row("list", f"GET {WS}/jobs", sdk("command_jobs", "list_update_archive_restore")),
        Row(
            "stream",
            "GET /history/…/runs/{id}/details",
            sdk("command_jobs", "the_log_is_followed_live_and_a_failure_raises_in_stream"),
        ),
        Row(
            "begin_cancel",
            f"POST {WS}/jobs/{{name}}/cancel",
            sdk("command_jobs", "a_running_job_is_canceled_and_leaves_no_process"),
        ),
        Row(
            "download",
            "datastore and blobs",
            sdk("command_jobs", "inputs_of_every_kind_and_outputs_come_through"),
        ),
        Row("update", "PATCH /history/…/runs/{id}", sdk("command_jobs", "list_update_archive_restore")),
        Row("archive", "PATCH /history/…/runs/{id}", sdk("command_jobs", "list_update_archive_restore")),
        Row("restore", "PATCH /history/…/runs/{id}", sdk("command_jobs", "list_update_archive_restore")),
        Row(
            "begin_delete",
            f"DELETE {WS}/jobs/{{name}}",
            rest("jobs", "a_canceled_job_can_be_deleted_and_its_name_used_again"),
        ),
        Row(
            "show_services",
            "GET /history/…/serviceinstances/{node}",
            sdk("command_jobs", "list_update_archive_restore"),
            "jobs have no interactive services yet, so there is nothing to show",
        ),
        Row("validate", "-", (), "on the client only"),
    ],
    "schedules": [
        *(
            Row(name, f"… {WS}/schedules")
            for name in (
                "begin_create_or_update",
                "begin_delete",
                "begin_disable",
                "begin_enable",
                "get",
                "list",
                "trigger",
            )
        ),
    ],
}
"""By the attribute of MLClient; the first word of each call is the method's name."""

NOT_YET = (
    "azure_openai_deployments",
    "batch_deployments",
    "batch_endpoints",
    "capability_hosts",
    "connections",
    "deployment_templates",
    "evaluators",
    "feature_sets",
    "feature_store_entities",
    "feature_stores",
    "indexes",
    "marketplace_subscriptions",
    "online_deployments",
    "online_endpoints",
    "serverless_endpoints",
    "workspace_outbound_rules",
)
"""Groups of MLClient without any call that works: they are about serving, not training, or come later."""

OTHERS: dict[str, list[Row]] = {
    "azure-identity": [
        Row("DefaultAzureCredential", "GET /msi/token", sdk("workspaces", "the_first_workspace_is_there")),
        Row("ManagedIdentityCredential", "GET /msi/token", rest("bootstrap", "a_wrong_secret_is_told")),
    ],
    "azure-storage-blob, adlfs": [
        Row(
            "upload, download, ranges, blocks",
            "/blob/{account}.blob.local/{container}/{blob}",
            rest("blob_clients", "upload_and_download"),
        ),
        Row("list, walk", "?comp=list", rest("blob_clients", "listing_and_walking")),
        Row("append, copy, tags, batch", "?comp=…", rest("blob_clients", "append_copy_tags_batch")),
        Row(
            "SAS, shared key, bearer token",
            "-",
            rest("blob_access", "each_permission_allows_its_own", "shared_keys", "bearer_tokens"),
        ),
        Row("adlfs", "-", rest("blob_clients", "adlfs")),
    ],
    "mlflow, azureml-mlflow": [
        Row(
            "runs, params, metrics, tags, search",
            "/api/2.0/mlflow, /mlflow/v2.0{WS}",
            sdk("mlflow_clients", "runs_are_logged_and_found"),
        ),
        Row("artifacts", "/api/2.0/mlflow-artifacts", sdk("mlflow_clients", "artifacts_go_up_and_down")),
        Row(
            "log and register models",
            "/api/2.0/mlflow/registered-models",
            sdk("mlflow_clients", "models_are_registered_and_read"),
        ),
        Row("autolog", "-", sdk("mlflow_clients", "autologging_scikit_learn_and_lightgbm")),
    ],
}


def render() -> str:
    """The document."""
    lines = [
        "# Compatibility",
        "",
        "What of the clients' APIs works, call by call. This file is made from `tests/compatibility.py`, where each call that",
        "works names the tests that show it with the unmodified client, and a test checks that nothing is left out.",
        "",
        "- `{WS}` = `/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.MachineLearningServices/workspaces/{workspace}`",
        "- `{LOC}` = `/subscriptions/{sub}/providers/Microsoft.MachineLearningServices/locations/{location}`",
        "- `{REG}` = a registry's data plane, as its discovery document says",
        "",
        "Paths are matched without regard to case, `api-version` does not matter, unknown fields are kept and given back.",
        "",
        "## azure-ai-ml (`MLClient`)",
    ]
    for group, rows in SDK.items():
        lines += ["", f"### {group}", "", *_table(rows)]
    names = ", ".join(f"`{name}`" for name in NOT_YET)
    lines += ["", "### Not yet", "", names, "", "## Other clients"]
    for group, rows in OTHERS.items():
        lines += ["", f"### {group}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: list[Row]) -> list[str]:
    lines = ["| call | request | works | shown by |", "|---|---|---|---|"]
    for row in rows:
        tests = "<br>".join(
            f"[{test.partition('::test_')[2].replace('_', ' ')}](../{test.partition('::')[0]})"
            for test in row.tests
        )
        state = "yes" if row.tests else ("–" if row.note.startswith("on the client") else LATER)
        note = f"{'; ' if tests else ''}{row.note}" if row.note else ""
        lines.append(f"| `{row.call}` | `{row.request}` | {state} | {tests}{note} |")
    return lines


def main() -> None:
    DOCUMENT.write_text(render())


if __name__ == "__main__":
    main()
