"""``noriba job``: the verbs of ``az ml job``."""

from __future__ import annotations

import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noriba.cli.framework import ApiCommand, Cli, LazyGroup, note
from noriba.client import documents
from noriba.client.errors import ClientError
from noriba.client.session import Session

if TYPE_CHECKING:
    from noriba.cli.output import Columns

CANCEL_POLL_S = 0.2
PAGE = 200
DEFAULT_MAX_RESULTS = 50

COLUMNS: Columns = [
    ("Name", "name"),
    ("Status", "status"),
    ("Type", "type"),
    ("Display name", "display_name"),
    ("Experiment", "experiment_name"),
    ("Created", lambda item: _when((item.get("creation_context") or {}).get("created_at"))),
]
TIMELINE_COLUMNS: Columns = [
    ("When", lambda item: _when(item.get("at"))),
    ("Kind", "kind"),
    ("What", lambda item: item.get("status") or item.get("code")),
    ("Attempt", "attempt"),
    ("Message", "message"),
]
UTILIZATION_COLUMNS: Columns = [
    ("When", lambda item: _when(item.get("at"))),
    ("Node", "rank"),
    ("CPU %", "cpu_percent"),
    ("Memory MiB", lambda item: _mib(item.get("memory_bytes"))),
    ("Disk MiB", lambda item: _mib(item.get("disk_used_bytes"))),
    ("Received MiB", lambda item: _mib(item.get("network_receive_bytes"))),
    ("Sent MiB", lambda item: _mib(item.get("network_send_bytes"))),
    ("GPU %", "gpu_percent"),
]


@click.group(cls=LazyGroup)
def job() -> None:
    """Create, list, show, stream, cancel, download jobs."""


name_option = click.option("--name", "-n", required=True, help="Name of the job.")


@job.command(cls=ApiCommand)
@click.option("--file", "-f", required=True, type=click.Path(), help="YAML file of the job.")
@click.option("--name", "-n", help="Name of the job, if not the one in the file or a generated one.")
@click.option(
    "--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Replace a field of the file: a.b=c …"
)
@click.option("--stream", "-s", "streams", is_flag=True, help="Follow the job's log until it is over.")
@click.option("--web", "-e", is_flag=True, help="Open the job in the Studio.")
@click.option(
    "--save-as", "-a", type=click.Path(path_type=Path), help="Write the created job to a YAML file."
)
@click.option("--skip-validation", is_flag=True, help="Submit without checking that what is named exists.")
def create(
    cli: Cli,
    file: str,
    name: str | None,
    sets: tuple[str, ...],
    streams: bool,
    web: bool,
    save_as: Path | None,
    skip_validation: bool,
) -> None:
    """Submit a job.

    \b
    noriba job create --file job.yml --set inputs.epochs=3 display_name=try-2 --stream
    """
    from noriba.cli import sdk

    client = sdk.client(cli)
    described = sdk.load("load_job", file, sdk.overrides_of(sets, name=name))
    with sdk.readable_errors():
        created = client.jobs.create_or_update(described, skip_validation=skip_validation)
    document = cli.session.get(_path(cli.session, created.name))
    shown = documents.job(document)
    if save_as is not None:
        from noriba.cli.output import as_yaml

        save_as.write_text(as_yaml(shown))
    if web:
        _open(document)
    if streams:
        note(f"{created.name}  {_studio(document)}")
        sys.exit(_stream(cli, created.name))
    cli.show(shown)


@job.command(cls=ApiCommand)
@click.option("--file", "-f", required=True, type=click.Path(), help="YAML file of the job.")
@click.option(
    "--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Replace a field of the file: a.b=c …"
)
def validate(cli: Cli, file: str, sets: tuple[str, ...]) -> None:
    """Check a job's YAML file without submitting it."""
    from noriba.cli import sdk

    client = sdk.client(cli)
    described = sdk.load("load_job", file, sdk.overrides_of(sets))
    with sdk.readable_errors():
        result = client.jobs.validate(described)
    cli.show(result._to_dict())
    if not result.passed:
        sys.exit(1)


@job.command("list", cls=ApiCommand)
@click.option(
    "--max-results", "-r", type=click.IntRange(1), help=f"Most jobs to list. [{DEFAULT_MAX_RESULTS}]"
)
@click.option(
    "--all-results",
    "-a",
    is_flag=False,
    flag_value="true",
    default="false",
    type=click.BOOL,
    help="List all jobs.",
)
@click.option("--archived-only", is_flag=True, help="List archived jobs only.")
@click.option("--include-archived", is_flag=True, help="List archived jobs too.")
@click.option("--parent-job-name", "-p", help="List the children of this job.")
@click.option("--tag", help="List jobs with this tag (NAME or NAME=VALUE).")
def list_jobs(
    cli: Cli,
    max_results: int | None,
    all_results: bool,
    archived_only: bool,
    include_archived: bool,
    parent_job_name: str | None,
    tag: str | None,
) -> None:
    """List jobs, newest first."""
    limit = None if all_results else max_results or DEFAULT_MAX_RESULTS
    session = cli.session
    if parent_job_name:
        session.get(_path(session, parent_job_name))
        found = session.pages(
            f"/history/v1.0{session.workspace}/runs/{parent_job_name}/children", query={"$top": limit}
        )
        rows = [documents.job_row(document) for document in islice(found, limit)]
    else:
        view = view_of(archived_only, include_archived)
        query = {"listViewType": view, "tag": tag, "$top": min(limit or PAGE, PAGE)}
        found = session.pages(f"{session.workspace}/jobs", query=query)
        rows = [documents.job(document) for document in islice(found, limit)]
    cli.show(rows, COLUMNS)


@job.command(cls=ApiCommand)
@name_option
@click.option("--web", "-e", is_flag=True, help="Open the job in the Studio.")
def show(cli: Cli, name: str, web: bool) -> None:
    """Show a job."""
    document = cli.session.get(_path(cli.session, name))
    if web:
        _open(document)
    cli.show(documents.job(document), COLUMNS)


@job.command(cls=ApiCommand)
@name_option
def stream(cli: Cli, name: str) -> None:
    """Follow a job's log until it is over. Exits with 1 if the job failed."""
    sys.exit(_stream(cli, name))


@job.command(cls=ApiCommand)
@name_option
@click.option("--no-wait", is_flag=True, help="Return when the job is told, not when it has ended.")
def cancel(cli: Cli, name: str, no_wait: bool) -> None:
    """Cancel a job."""
    session = cli.session
    answer = session.call("POST", f"{_path(session, name)}/cancel")
    while answer.status == 202 and not no_wait and "location" in answer.headers:
        time.sleep(CANCEL_POLL_S)
        answer = session.call("GET", answer.headers["location"])


@job.command(cls=ApiCommand)
@name_option
@click.option("--all", "everything", is_flag=True, help="Logs, artifacts and all named outputs.")
@click.option("--output-name", help="Only this named output.")
@click.option(
    "--download-path", "-p", type=click.Path(path_type=Path), default=Path(), help="Folder to put it. [.]"
)
def download(cli: Cli, name: str, everything: bool, output_name: str | None, download_path: Path) -> None:
    """Download a job's logs and artifacts (to artifacts/) and outputs (to named-outputs/)."""
    from noriba.cli.progress import downloading
    from noriba.client.download import output_addresses

    session = cli.session
    document = session.get(_path(session, name))
    outputs = output_addresses(document)
    artifacts = f"azureml://datastores/workspaceartifactstore/paths/ExperimentRun/dcid.{name}/"
    wanted: dict[str, Path] = {}
    if output_name and output_name != "default":
        if output_name not in outputs:
            known = ", ".join(sorted(outputs)) or "it has none"
            raise ClientError(
                f"The job {name} has no output '{output_name}' to download. Its outputs: {known}."
            )
        wanted[outputs[output_name]] = download_path / "named-outputs" / output_name
    else:
        wanted[artifacts] = download_path / "artifacts"
        if everything:
            for output, address in outputs.items():
                wanted[address] = download_path / "named-outputs" / output
    with downloading(session) as downloader:
        counts = {folder: downloader.fetch(address, folder) for address, folder in wanted.items()}
    for folder, count in counts.items():
        note(f"{count} file{'' if count == 1 else 's'} to {folder}")


@job.command(cls=ApiCommand)
@name_option
def archive(cli: Cli, name: str) -> None:
    """Hide a job from lists."""
    _patch(cli.session, name, {"hidden": True})


@job.command(cls=ApiCommand)
@name_option
def restore(cli: Cli, name: str) -> None:
    """Take a job out of the archive."""
    _patch(cli.session, name, {"hidden": False})


@job.command(cls=ApiCommand)
@name_option
@click.option(
    "--set", "sets", multiple=True, metavar="FIELD=VALUE", help="display_name=…, description=…, tags.NAME=…"
)
@click.option("--web", "-e", is_flag=True, help="Open the job in the Studio.")
def update(cli: Cli, name: str, sets: tuple[str, ...], web: bool) -> None:
    """Change a job's display name, description, tags or properties."""
    _patch(cli.session, name, changes_of(sets))
    document = cli.session.get(_path(cli.session, name))
    if web:
        _open(document)
    cli.show(documents.job(document), COLUMNS)


@job.command("show-services", cls=ApiCommand)
@name_option
@click.option(
    "--node-index", "-i", type=click.IntRange(0), default=0, show_default=True, help="Node of the job."
)
def show_services(cli: Cli, name: str, node_index: int) -> None:
    """Show the services of a job's node."""
    session = cli.session
    found = session.get(f"/history/v1.0{session.workspace}/runs/{name}/serviceinstances/{node_index}")
    cli.show(documents.snake_keys(found.get("instances") or {}, user_keyed=True))


@job.command(cls=ApiCommand)
@name_option
def timeline(cli: Cli, name: str) -> None:
    """Show what happened to a job, and when."""
    found = cli.session.get(_path(cli.session, name) + "/timeline")["value"]
    cli.show(found, TIMELINE_COLUMNS)


@job.command(cls=ApiCommand)
@name_option
def utilization(cli: Cli, name: str) -> None:
    """Show what a job used of its nodes: CPU, memory, disk, network, GPU."""
    found = cli.session.get(_path(cli.session, name) + "/utilization")["value"]
    cli.show(found, UTILIZATION_COLUMNS)


@job.command(cls=ApiCommand)
@name_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def delete(cli: Cli, name: str, yes: bool) -> None:
    """Delete a job that is over, with its history."""
    if not yes:
        click.confirm(f"Delete the job {name} for good?", abort=True, err=True)
    cli.session.call("DELETE", _path(cli.session, name))


# --- helpers


def _mib(size: float | None) -> str:
    return "" if size is None else f"{size / 2**20:.1f}"


def _path(session: Session, name: str) -> str:
    return f"{session.workspace}/jobs/{name}"


def _stream(cli: Cli, name: str) -> int:
    from noriba.cli.follow import stream as follow

    return follow(cli.session, name, hint=cli.target.home_flag)


def _patch(session: Session, name: str, changes: dict[str, Any]) -> None:
    experiment = session.get(_path(session, name))["properties"].get("experimentName") or "Default"
    session.call(
        "PATCH", f"/history/v1.0{session.workspace}/experiments/{experiment}/runs/{name}", json=changes
    )


def changes_of(assignments: tuple[str, ...]) -> dict[str, Any]:
    """``--set`` of ``job update`` as run history wants it. Raises UsageError for fields that can not change."""
    plain = {"display_name": "displayName", "description": "description"}
    changes: dict[str, Any] = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        group, dot, key = field.partition(".")
        if equals and field in plain:
            changes[plain[field]] = value
        elif equals and dot and key and group in ("tags", "properties"):
            changes.setdefault(group, {})[key] = value
        else:
            raise click.UsageError(
                f"'{assignment}' can not be set on a job that exists. What can: display_name=, description=, "
                "tags.NAME=, properties.NAME=."
            )
    if not changes:
        raise click.UsageError("Nothing to change: give --set FIELD=VALUE.")
    return changes


def view_of(archived_only: bool, include_archived: bool) -> str:
    """``listViewType`` for the two flags."""
    return "ArchivedOnly" if archived_only else "All" if include_archived else "ActiveOnly"


def _studio(document: dict[str, Any]) -> str:
    services = document["properties"].get("services") or {}
    return str((services.get("Studio") or {}).get("endpoint") or "")


def _open(document: dict[str, Any]) -> None:
    from noriba.cli.env import show_page

    show_page(_studio(document), to_stderr=True)


def _when(at: str | None) -> str:
    """A time of the API for people, in their time zone."""
    if not at:
        return ""
    import datetime as dt

    try:
        return dt.datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return at
