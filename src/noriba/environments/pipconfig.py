"""pip's own configuration, read for uv, which does not look at it.

pip's rules: https://pip.pypa.io/en/stable/topics/configuration/ . Later files win over earlier ones, environment
variables over all files; ``[install]`` wins over ``[global]``. Unlike pip's, lists (indexes, links) of several
files add up only within one option's winning source.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from noriba.environments.requirements import logical_lines
from noriba.environments.spec import PipOptions

_LISTS = {
    "extra-index-url": "extra_index_urls",
    "find-links": "find_links",
    "trusted-host": "trusted_hosts",
    "no-binary": "no_binary",
    "only-binary": "only_binary",
}
_STRINGS = {"index-url": "index_url", "cert": "cert", "client-cert": "client_cert", "proxy": "proxy"}
_FLAGS = {"no-index": "no_index", "pre": "pre"}


def config_files(env: Mapping[str, str], home: Path, prefix: Path | None = None) -> list[Path]:
    """The files that pip would read, weakest first. ``PIP_CONFIG_FILE=/dev/null`` means none, as for pip."""
    named = env.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    xdg_dirs = [
        Path(p) / "pip" / "pip.conf" for p in reversed(env.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")) if p
    ]
    files = [*xdg_dirs, Path("/etc/pip.conf")]
    files += [home / ".pip" / "pip.conf"]
    files += [Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"]
    if prefix is not None:
        files.append(prefix / "pip.conf")
    if named:
        files.append(Path(named).expanduser())
    return files


def read_pip_config(env: Mapping[str, str] | None = None, home: Path | None = None) -> PipOptions:
    """pip's configuration of this machine and user. Unreadable files count as absent, as they do for pip.

    Constraint files are read here, so that their content (not their name) enters an environment's key. Raises
    ``ValueError`` where a configured constraint file cannot be read or a configuration file is malformed.
    """
    env = os.environ if env is None else env
    home = home or Path(env.get("HOME") or "~").expanduser()
    values: dict[str, str] = {}
    for path in config_files(env, home):
        values.update(_read_file(path))
    for name, value in env.items():
        if name.startswith("PIP_") and value and name != "PIP_CONFIG_FILE":
            values[name[4:].lower().replace("_", "-")] = value
    return _options(values)


def _read_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text("utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError):
        return {}
    except configparser.Error as error:
        raise ValueError(
            f"pip's configuration file {path} is malformed: {' '.join(str(error).split())}"
        ) from None
    values: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            values.update({key.lower().replace("_", "-"): value for key, value in parser.items(section)})
    return values


def _options(values: Mapping[str, str]) -> PipOptions:
    fields: dict[str, object] = {}
    for key, field in _LISTS.items():
        if key in values:
            pattern = r"[\s,]+" if "binary" in key else r"\s+"
            fields[field] = tuple(part for part in re.split(pattern, values[key].strip()) if part)
    for key, field in _STRINGS.items():
        if values.get(key):
            fields[field] = values[key].strip()
    for key, field in _FLAGS.items():
        if key in values:
            fields[field] = values[key].strip().lower() in ("1", "true", "yes", "on", "y", "t")
    timeout = values.get("timeout") or values.get("default-timeout")
    if timeout:
        try:
            fields["timeout_s"] = float(timeout)
        except ValueError:
            raise ValueError(f"pip's timeout {timeout!r} is not a number of seconds") from None
    constraints: list[str] = []
    for name in values.get("constraint", "").split():
        try:
            constraints += logical_lines(Path(name).expanduser().read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"pip's constraint file {name} cannot be read: {error}") from None
    if constraints:
        fields["constraints"] = tuple(constraints)
    return msgspec.convert(fields, PipOptions)


def uv_arguments(options: PipOptions) -> list[str]:
    """The options for ``uv pip compile`` and ``uv pip install``, constraints excepted (they need a file).

    pip looks at all indexes and takes the best match; uv does so only when told.
    """
    arguments = ["--index-strategy", "unsafe-best-match"]
    if options.no_index:
        arguments.append("--no-index")
    elif options.index_url:
        arguments += ["--default-index", options.index_url]
    for url in options.extra_index_urls if not options.no_index else ():
        arguments += ["--index", url]
    for link in options.find_links:
        arguments += ["--find-links", link]
    for host in options.trusted_hosts:
        arguments += ["--allow-insecure-host", host]
    for name in options.no_binary:
        arguments += ["--no-binary", name]
    for name in options.only_binary:
        arguments += ["--only-binary", name]
    if options.pre:
        arguments += ["--prerelease", "allow"]
    return arguments


def uv_environment(options: PipOptions) -> dict[str, str]:
    """Variables for uv: certificates, proxy, timeouts."""
    env: dict[str, str] = {}
    if options.cert:
        env["SSL_CERT_FILE"] = options.cert
    if options.client_cert:
        env["SSL_CLIENT_CERT"] = options.client_cert
    if options.proxy:
        env |= {"HTTP_PROXY": options.proxy, "HTTPS_PROXY": options.proxy, "ALL_PROXY": options.proxy}
    if options.timeout_s:
        env["UV_HTTP_TIMEOUT"] = str(max(1, round(options.timeout_s)))
    return env
