"""Building one environment into a staging folder: a virtual environment, a conda prefix, or a container's record."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from noriba.environments import condatool, containers, errors, torch_family
from noriba.environments.accelerator import cuda_packages, locked
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.keeping import EnvironmentRecord
from noriba.environments.plan import CondaPlan, EnvironmentPlan
from noriba.environments.process import Programs
from noriba.environments.pythons import Interpreter
from noriba.environments.resolve import Resolved, Resolver
from noriba.environments.spec import PipOptions
from noriba.environments.uvtool import Uv

if TYPE_CHECKING:
    from noriba.environments.store import EnvironmentStore


class _KeptLock(msgspec.Struct, frozen=True, kw_only=True):
    """A resolution that is kept for rebuilding the same environment with the same versions."""

    interpreter: Interpreter
    lock: str
    requirements: tuple[str, ...]
    options: PipOptions
    warnings: tuple[str, ...]
    exact: bool


class Builder:
    """Builds one plan. ``staging`` is an empty folder of the store but for ``noriba/``."""

    def __init__(
        self, store: EnvironmentStore, plan: EnvironmentPlan, staging: Path, programs: Programs
    ) -> None:
        self.store, self.plan, self.staging, self.programs = store, plan, staging, programs
        self.settings, self.log = store.settings, programs.log
        self.meta = staging / "noriba"
        self.cwd = Path(plan.context) if plan.context else self.meta
        self.uv = Uv(programs, store.root / "uv-cache", store.root / "pythons", plan.options)

    def build(self) -> EnvironmentRecord:
        """Build. The record lacks what the store knows better (key, name, times). Raises ``EnvironmentBuildError``."""
        if self.plan.container is not None:
            return self._container()
        if self.plan.conda is not None:
            unreachable = self._unreachable_channels(self.plan.conda)
            if not unreachable:
                return self._conda(self.plan.conda)
            return self._venv(self._mapped(self.plan.conda, unreachable))
        return self._venv(())

    # --- virtual environments -----------------------------------------------------------------------------

    def _venv(self, extra: tuple[str, ...]) -> EnvironmentRecord:
        resolved = self._resolved(extra)
        python = self.staging / "bin" / "python"
        self.log(f"Python {resolved.interpreter.version} ({resolved.interpreter.path})")
        self.uv.create(self.staging, resolved.interpreter.path)
        self._install(resolved, python)
        warnings = list(resolved.warnings)
        packages = locked(resolved.lock)
        if self.settings.platform == "linux-64":
            warnings += torch_family.adapt(next(self.staging.glob("lib/python3*/site-packages")), packages)
        for warning in warnings:
            self.log(f"warning: {warning}")
        for line in self.uv.check(python):
            self.log(f"note: {line}")
        _reset_activation(self.staging)
        return EnvironmentRecord(
            key="",
            id=f"{self.plan.key()}-py{resolved.interpreter.minor.replace('.', '')}",
            requirements=[*self.plan.requirements, *extra],
            python_version=resolved.interpreter.version,
            python_prefix=resolved.interpreter.prefix,
            warnings=warnings,
            exact=resolved.exact,
            packages=len(packages),
            size_bytes=_size(self.staging),
        )

    def _resolved(self, extra: tuple[str, ...]) -> Resolved:
        interpreters = self.store.interpreters()
        kept = self._kept_lock(interpreters)
        if kept is not None:
            self.log("versions are those of the earlier build of the same environment (its lock is kept)")
            return Resolved(**{name: getattr(kept, name) for name in Resolved.__struct_fields__})
        start = time.monotonic()
        resolver = Resolver(self.uv, self.settings, interpreters, self.meta, self.cwd)
        resolved = resolver.resolve(self.plan, extra)
        self.log(f"resolved {len(locked(resolved.lock))} packages in {time.monotonic() - start:.2f} s")
        if self.plan.cpu_torch and (heavy := cuda_packages(resolved.lock)):
            self.log(
                f"note: CUDA packages on a node without a GPU, because the environment asks for them: {', '.join(heavy)}"
            )
        return resolved

    def _kept_path(self) -> Path:
        return self.store.root / "resolutions" / f"{self.plan.key()}.json"

    def _kept_lock(self, interpreters: list[Interpreter]) -> _KeptLock | None:
        try:
            kept = msgspec.json.decode(self._kept_path().read_bytes(), type=_KeptLock)
        except (OSError, msgspec.DecodeError):
            return None  # none is kept, or it is of another format: resolve anew
        here = kept.interpreter in interpreters
        return kept if here and kept.exact and not self.plan.context else None

    def _install(self, resolved: Resolved, python: Path) -> None:
        lock = self.meta / "requirements.lock"
        lock.write_text(resolved.lock)
        packages = locked(resolved.lock)
        self.log("packages: " + ", ".join(f"{name} {version}".strip() for name, version in packages.items()))
        start = time.monotonic()
        source = self.uv.install(lock, python, resolved.options, self.cwd, self.plan.wheels_only)
        self.log(f"installed {len(packages)} packages from the {source} in {time.monotonic() - start:.2f} s")
        kept = _KeptLock(**{name: getattr(resolved, name) for name in Resolved.__struct_fields__})
        temporary = self.meta / "kept.json"
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.replace(self._kept_path())

    # --- conda --------------------------------------------------------------------------------------------

    def _unreachable_channels(self, conda: CondaPlan) -> list[str]:
        if self.settings.conda == "never":
            return ["conda is switched off on this node (setting conda)"]
        start = time.monotonic()
        found = condatool.unreachable_channels(conda.channels, self.settings.conda_timeout_s)
        for line in found:
            self.log(f"conda channel {line} ({time.monotonic() - start:.1f} s)")
        return found

    def _mapped(self, conda: CondaPlan, unreachable: list[str]) -> tuple[str, ...]:
        """The PyPI packages that stand in for the conda packages. Raises ``EnvironmentBuildError``."""
        asked = ", ".join(str(dep) for dep in conda.dependencies)
        if not self.settings.allow_pypi_mapping or self.settings.conda == "always":
            raise EnvironmentBuildError(
                errors.CHANNEL_UNREACHABLE,
                f"the conda packages {asked} cannot be had: {'; '.join(unreachable)}. Make the channels reachable, or set "
                "allow_pypi_mapping to take the packages from PyPI",
            )
        self.log("conda packages are taken from PyPI, because " + "; ".join(unreachable))
        requirements: list[str] = []
        absent: list[str] = []
        for mapping in conda.mapping:
            if mapping.unprovidable:
                absent.append(f"'{mapping.conda}' ({mapping.unprovidable})")
            elif mapping.program:
                where = shutil.which(mapping.program)
                if where is None:
                    absent.append(f"'{mapping.conda}' (the node has no program '{mapping.program}')")
                else:
                    self.log(f"conda '{mapping.conda}' -> {where} of this node")
            else:
                self.log(mapping.note or mapping.conda)
                requirements += [mapping.requirement] if mapping.requirement else []
        if absent:
            raise EnvironmentBuildError(
                errors.CHANNEL_UNREACHABLE,
                f"conda packages without a counterpart on PyPI, and no conda channel answers: {', '.join(absent)}. Remove "
                "them from the environment, or make its channels reachable from the node",
            )
        return tuple(requirements)

    def _conda(self, conda: CondaPlan) -> EnvironmentRecord:
        target = self.store.root / "envs" / f"{self.plan.key()}-conda"
        start = time.monotonic()
        specs = condatool.specs(conda, bool(self.plan.requirements))
        self.log(f"solving {', '.join(specs)} in {', '.join(conda.channels)}")
        records = condatool.solve(conda.channels, specs)
        self.log(f"solved {len(records)} conda packages in {time.monotonic() - start:.2f} s")
        self.log("conda packages: " + ", ".join(f"{r.name} {r.version}" for r in records))
        self.programs.check_canceled()
        start = time.monotonic()
        condatool.install(records, self.staging, target, self.store.root / "conda-cache")
        self.log(f"installed {len(records)} conda packages in {time.monotonic() - start:.2f} s")
        (self.meta / "conda.lock").write_text("".join(f"{r.url}\n" for r in records))
        python = self.staging / "bin" / "python"
        packages, version = len(records), ""
        if python.exists():
            version = condatool.python_version(self.programs, python)
            packages += self._pip_into_conda(python, target)
        return EnvironmentRecord(
            key="",
            id=target.name,
            requirements=[*map(str, conda.dependencies), *self.plan.requirements],
            python_version=version,
            packages=packages,
            size_bytes=_size(self.staging),
        )

    def _pip_into_conda(self, python: Path, target: Path) -> int:
        wanted = tuple(
            line for line in self.plan.requirements if line not in ("pip", "setuptools<82", "wheel")
        )
        if not wanted:
            return 0
        start = time.monotonic()
        before = locked(self.uv.freeze(python))
        constraints = tuple(f"{name}=={version}" for name, version in before.items() if version)
        here = Interpreter(
            path=str(python),
            version=condatool.python_version(self.programs, python),
            prefix=str(self.staging),
        )
        plan = msgspec.structs.replace(
            self.plan,
            variants=(msgspec.structs.replace(self.plan.variants[0], python="", requirements=wanted),),
            options=msgspec.structs.replace(
                self.plan.options, constraints=(*constraints, *self.plan.options.constraints)
            ),
        )
        resolved = Resolver(self.uv, self.settings, [here], self.meta, self.cwd).resolve(plan)
        fresh = {
            name: version
            for name, version in locked(resolved.lock).items()
            if before.get(name) != version or not version
        }
        lines = [line for line in resolved.lock.splitlines() if set(locked(line)) & set(fresh)]
        lock = self.meta / "requirements.lock"
        lock.write_text("\n".join(lines) + "\n")
        self.log("pip packages: " + ", ".join(f"{name} {version}".strip() for name, version in fresh.items()))
        source = self.uv.install(lock, python, resolved.options, self.cwd, self.plan.wheels_only)
        condatool.move_scripts(self.staging, target)
        self.log(f"installed {len(fresh)} pip packages from the {source} in {time.monotonic() - start:.2f} s")
        return len(fresh)

    # --- containers ---------------------------------------------------------------------------------------

    def _container(self) -> EnvironmentRecord:
        assert self.plan.container is not None
        container = self.plan.container
        image = containers.provide(container, self.plan.key(), self.programs, self.meta)
        (self.staging / "bin").mkdir()
        return EnvironmentRecord(
            key="",
            id=f"{self.plan.key()}-container",
            python="bin/python",
            container_image=image,
            container_runtime=container.runtime,
        )


def _reset_activation(staging: Path) -> None:
    """uv names the environment after its folder; after the rename the staging name would show in prompts."""
    config = staging / "pyvenv.cfg"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("prompt")]
    config.write_text("\n".join(lines) + "\n")


def _size(path: Path) -> int:
    """Bytes of all files below ``path``, hard links to the cache counted too."""
    total = 0
    for folder, _, files in os.walk(path):
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return total
