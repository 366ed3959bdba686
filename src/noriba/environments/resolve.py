"""From a plan to a lock: which Python, which versions. The node's rules on Python and PyTorch are applied here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from noriba.environments import accelerator, errors, pythons
from noriba.environments.accelerator import CpuBuild
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.plan import EnvironmentPlan, Variant
from noriba.environments.pythons import Interpreter
from noriba.environments.requirements import name_of
from noriba.environments.spec import BuildSettings, PipOptions, merge
from noriba.environments.uvtool import Resolution, Uv, explain, missing_package, not_found

MAX_ROUNDS = 8
"""How often a resolution is repeated because its result held a build of PyTorch that may not be taken."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A lock and what it is for. ``exact`` is False where Python or PyTorch had to differ from what was asked."""

    interpreter: Interpreter
    lock: str
    requirements: tuple[str, ...]
    options: PipOptions
    warnings: tuple[str, ...] = ()
    exact: bool = True


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    interpreter: Interpreter
    requirements: tuple[str, ...]
    warnings: tuple[str, ...]
    exact: bool
    torch: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


class Resolver:
    """Resolves plans on one node. ``work`` is a folder for its files, ``cwd`` what local paths are relative to."""

    def __init__(
        self, uv: Uv, settings: BuildSettings, interpreters: list[Interpreter], work: Path, cwd: Path
    ) -> None:
        self.uv, self.settings, self.interpreters, self.work, self.cwd = uv, settings, interpreters, work, cwd
        self.log = uv.programs.log
        self._builds: tuple[list[CpuBuild], str | None] | None = None

    def resolve(self, plan: EnvironmentPlan, extra: tuple[str, ...] = ()) -> Resolved:
        """Choose a Python, resolve the plan's requirements and ``extra``. Raises ``EnvironmentBuildError``."""
        interpreter, variant, exact, warnings = self.choose(plan)
        try:
            return self._resolve(plan, extra, interpreter, variant, exact, warnings)
        except EnvironmentBuildError as error:
            if exact or error.code == errors.CANCELED:
                raise
            raise EnvironmentBuildError(error.code, f"{error.message} ({'; '.join(warnings)})") from error

    def _resolve(
        self,
        plan: EnvironmentPlan,
        extra: tuple[str, ...],
        interpreter: Interpreter,
        variant: Variant,
        exact: bool,
        warnings: tuple[str, ...],
    ) -> Resolved:
        base = _Candidate(
            interpreter=interpreter,
            requirements=self._requirements(plan, variant, extra),
            warnings=warnings,
            exact=exact,
            overrides=variant.overrides,
        )
        if not plan.cpu_torch:
            return self._lock(plan, base, ())
        if any(name_of(line) == "torch" for line in base.requirements):
            return self._with_cpu_torch(plan, base, extra, "asked")
        resolved = self._lock(plan, base, ())
        if "torch" in accelerator.locked(resolved.lock) and accelerator.cuda_packages(resolved.lock):
            return self._with_cpu_torch(plan, base, extra, "needed by other packages")
        return resolved

    # --- Python -------------------------------------------------------------------------------------------

    def choose(self, plan: EnvironmentPlan) -> tuple[Interpreter, Variant, bool, tuple[str, ...]]:
        """The interpreter and the variant of the plan for it, whether they are as asked, and warnings if not."""
        first = plan.variants[0]
        for index, variant in enumerate(plan.variants):
            found = pythons.choose(variant.python, self.interpreters, self.settings.default_python)
            if found is None or not found.exact:
                if index == 0 and self._download(variant.python):
                    found = pythons.choose(variant.python, self.interpreters)
                if found is None or not found.exact:
                    continue
            if index and self.settings.python_preference == "exact":
                break
            notes = _moved(first, variant, found.interpreter)
            return found.interpreter, variant, index == 0, notes
        asked = first.python
        nearest = pythons.choose(asked, self.interpreters, self.settings.default_python)
        if nearest is None or self.settings.python_preference == "exact":
            have = ", ".join(sorted({i.minor for i in self.interpreters}, key=Version)) or "none"
            raise EnvironmentBuildError(
                errors.PYTHON_UNAVAILABLE,
                f"Python {_shown(asked)} is not on this node (it has {have}) and could not be downloaded; install it on the "
                "node, ask for one that is there, or set python_preference to nearest",
            )
        interpreter = nearest.interpreter
        variant = next((v for v in plan.variants if _admits(v.python, interpreter)), first)
        warnings = _moved(first, variant, interpreter)
        if variant is first:
            warnings = (
                f"Python {_shown(asked)} was asked; Python {interpreter.minor}, the nearest to be had, is used",
            )
        return interpreter, variant, False, warnings

    def _download(self, wanted: str) -> bool:
        if not self.settings.python_downloads or not wanted:
            return False
        minor = ".".join(str(part) for part in pythons.wanted_minor(wanted))
        if Version(minor) < pythons.OLDEST:
            return False
        self.log(f"Python {minor} is not on this node; asking uv to download it")
        if not self.uv.download_python(minor, timeout_s=5):
            return False
        known = {i.path for i in self.interpreters}
        root = Path(self.uv.run("python", "dir").output.strip())
        self.interpreters += [i for i in pythons.discover(None, [root]) if i.path not in known]
        return True

    # --- requirements -------------------------------------------------------------------------------------

    @staticmethod
    def _requirements(plan: EnvironmentPlan, variant: Variant, extra: tuple[str, ...]) -> tuple[str, ...]:
        lines = merge(variant.requirements, extra)
        return tuple(accelerator.strip_gpu_extras(lines)) if plan.cpu_torch else lines

    def _lock(
        self,
        plan: EnvironmentPlan,
        candidate: _Candidate,
        constraints: tuple[str, ...],
        index: str | None = None,
    ) -> Resolved:
        options = plan.options
        if index is not None:
            options = msgspec.structs.replace(
                options, extra_index_urls=merge(options.extra_index_urls, (index,))
            )
        wish = Resolution(
            requirements=candidate.requirements,
            constraints=constraints,
            overrides=(*candidate.overrides, *_without_gpu_packages(plan)),
            options=options,
            wheels_only=plan.wheels_only,
        )
        return Resolved(
            interpreter=candidate.interpreter,
            lock=self._compile_for(wish, candidate),
            requirements=candidate.requirements,
            options=options,
            warnings=candidate.warnings,
            exact=candidate.exact,
        )

    def _compile_for(self, wish: Resolution, candidate: _Candidate) -> str:
        """Where Python is not the one asked, the versions asked may have no wheels for it: building old releases takes
        long and mostly fails, so wheels are tried first."""
        if candidate.exact or wish.wheels_only:
            return self._compile(wish, candidate.interpreter)
        try:
            return self._compile(msgspec.structs.replace(wish, wheels_only=True), candidate.interpreter)
        except EnvironmentBuildError as error:
            if error.code not in (errors.CONFLICT, errors.PACKAGE_NOT_FOUND):
                raise
            self.log(f"not from wheels alone, trying to build from source: {error.message}")
        return self._compile(wish, candidate.interpreter)

    def _compile(self, wish: Resolution, interpreter: Interpreter) -> str:
        absent: list[str] = []
        while True:
            done = self.uv.compile(wish, interpreter.path, self.work, self.cwd)
            if done.status and explain(done.errors).code == errors.INDEX_UNREACHABLE:
                self.log("a package index does not answer; trying with what the cache holds")
                offline = self.uv.compile(wish, interpreter.path, self.work, self.cwd, offline=True)
                done = offline if offline.status == 0 else done
            if done.status == 0 and not absent:
                return done.output
            missing = missing_package(done.errors) if done.status else None
            kept = tuple(
                line for line in wish.requirements if missing is None or name_of(line) != name_of(missing)
            )
            if missing is not None and len(kept) < len(wish.requirements):
                absent.append(missing)  # go on without it, to name all that are missing at once
            elif absent:
                raise not_found(absent)
            elif "setuptools" in done.errors and "setuptools<82" in wish.requirements:
                kept = tuple("setuptools" if line == "setuptools<82" else line for line in wish.requirements)
            else:
                raise explain(done.errors)
            wish = msgspec.structs.replace(wish, requirements=kept)

    # --- PyTorch ------------------------------------------------------------------------------------------

    def builds(self) -> tuple[list[CpuBuild], str | None]:
        """CPU builds of PyTorch in reach, and the index that has them if it answers (looked up once)."""
        if self._builds is None:
            options = self.uv.options
            self._builds = accelerator.find_cpu_builds(
                options.find_links,
                "" if options.no_index else self.settings.torch_cpu_index,
                self.settings.conda_timeout_s,
                self.settings.platform,
            )
        return self._builds

    def _with_cpu_torch(
        self, plan: EnvironmentPlan, base: _Candidate, extra: tuple[str, ...], why: str
    ) -> Resolved:
        builds, index = self.builds()
        self.log(
            f"PyTorch is {why}; this node has no NVIDIA GPU, so only CPU builds are taken "
            f"({len({b.version for b in builds if b.name == 'torch'})} versions in reach, "
            f"{self.settings.torch_cpu_index} {'answers' if index else 'does not answer'})"
        )
        failure: EnvironmentBuildError | None = None
        for candidate in self._torch_candidates(plan, base, extra, builds):
            try:
                return self._cpu_lock(plan, candidate, index)
            except EnvironmentBuildError as error:
                if error.code not in (errors.CONFLICT, errors.PACKAGE_NOT_FOUND):
                    raise
                failure = failure or error
                self.log(
                    f"with Python {candidate.interpreter.minor} and torch {candidate.torch[0]}: {error.message}"
                )
        if failure is not None:
            raise failure
        asked = [line for line in base.requirements if name_of(line) == "torch"] or ["torch"]
        raise EnvironmentBuildError(
            errors.PACKAGE_NOT_FOUND,
            f"'{asked[0]}' has no build without CUDA in reach for Python {base.interpreter.minor}, and this node has no NVIDIA GPU. Put "
            "a CPU wheel into a folder named by pip's find-links, make the index of torch_cpu_index reachable, set "
            "torch_preference to nearest, or set torch_build to any to allow the CUDA build",
        )

    def _torch_candidates(
        self, plan: EnvironmentPlan, base: _Candidate, extra: tuple[str, ...], builds: Sequence[CpuBuild]
    ) -> Iterator[_Candidate]:
        """What may be tried, best first: as asked; another Python; another torch; both."""
        places = [base, *self._other_pythons(plan, base, extra)]
        for place in places:
            versions = accelerator.torch_versions(builds, place.interpreter.minor)
            if fitting := accelerator.admissible(place.requirements, versions):
                yield msgspec.structs.replace(place, torch=tuple(fitting))
        if self.settings.torch_preference == "exact":
            return
        for place in places:
            versions = accelerator.torch_versions(builds, place.interpreter.minor)
            if not versions or accelerator.admissible(place.requirements, versions):
                continue
            version = accelerator.nearest(place.requirements, versions)
            asked = next(line for line in place.requirements if name_of(line) == "torch")
            note = (
                f"'{asked}' has no build without CUDA in reach and this node has no NVIDIA GPU; torch {version} is used, with the "
                "releases of torchvision, torchaudio and the like that belong to it"
            )
            yield msgspec.structs.replace(
                place,
                requirements=tuple(accelerator.relax(place.requirements, version)),
                warnings=(*place.warnings, note),
                exact=False,
                torch=(version,),
            )

    def _other_pythons(
        self, plan: EnvironmentPlan, base: _Candidate, extra: tuple[str, ...]
    ) -> Iterator[_Candidate]:
        asked = plan.python
        if asked and self.settings.python_preference == "exact":
            return
        for other in pythons.by_distance(asked or f"=={base.interpreter.minor}.*", self.interpreters):
            if other.minor == base.interpreter.minor:
                continue
            variant = next((v for v in plan.variants if _admits(v.python, other)), plan.variants[0])
            note = f"Python {other.minor} is used, not {_shown(asked)}: PyTorch has no build without CUDA for that in reach"
            moved = (variant.moved,) if variant.moved else ()
            yield _Candidate(
                interpreter=other,
                requirements=self._requirements(plan, variant, extra),
                warnings=(note, *moved) if asked else moved,
                exact=not asked,
                overrides=variant.overrides,
            )

    def _cpu_lock(self, plan: EnvironmentPlan, candidate: _Candidate, index: str | None) -> Resolved:
        constraints = accelerator.torch_constraint(candidate.torch)
        for _ in range(MAX_ROUNDS):
            resolved = self._lock(plan, candidate, tuple(constraints), index)
            torch = accelerator.locked(resolved.lock).get("torch")
            if torch is None or torch in candidate.torch:
                return resolved
            constraints.append(f"torch!={Version(torch).public}")
        raise EnvironmentBuildError(
            errors.CONFLICT,
            f"no CPU build of PyTorch ({', '.join(candidate.torch)}) goes with the other packages",
        )


def _without_gpu_packages(plan: EnvironmentPlan) -> tuple[str, ...]:
    """Overrides that leave out what is of use with several GPUs only: a marker that never holds."""
    return tuple(f"{name}; python_version < '0'" for name in accelerator.GPU_ONLY) if plan.cpu_torch else ()


def _admits(specifier: str, interpreter: Interpreter) -> bool:
    return not specifier or SpecifierSet(specifier).contains(interpreter.version, prereleases=True)


def _shown(specifier: str) -> str:
    return specifier.removeprefix("==").removesuffix(".*") or "of any version"


def _moved(first: Variant, variant: Variant, interpreter: Interpreter) -> tuple[str, ...]:
    notes: list[str] = []
    if variant is not first:
        notes.append(
            f"Python {_shown(first.python)} is not to be had on this node; Python {interpreter.minor} is used"
        )
    if variant.moved:
        notes.append(variant.moved)
    if interpreter.missing:
        notes.append(
            f"Python {interpreter.version} of this node lacks the modules {', '.join(interpreter.missing)}"
        )
    return tuple(notes)
