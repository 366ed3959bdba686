"""From what is asked to what has to be there. Pure: no network, no clock; of files, only the build context's.

A plan is complete: together with the node's interpreters and package indexes it says all that the store needs, and
its ``key`` is the same on every node for the same wish under the same rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
from packaging.utils import canonicalize_name

from noriba.environments import conda as conda_files
from noriba.environments import errors
from noriba.environments.catalogue import CuratedEnvironment
from noriba.environments.conda import CondaDependency, CondaFile, Mapping
from noriba.environments.context import ContextFolder
from noriba.environments.dockerfile import DockerfilePlan, read_dockerfile
from noriba.environments.images import recognise_image
from noriba.environments.requirements import Requirements, is_local_path, name_of, read_requirements
from noriba.environments.spec import BuildContext, BuildSettings, EnvironmentSpec, PipOptions, merge

FORMAT = 1
"""Part of every key: raise it when the way of building changes what comes out."""

Catalogue = Callable[[str, str | None], CuratedEnvironment | None]
"""``catalogue.find_curated`` or a twin of it."""

AZUREML_CLIENTS = ("azureml-mlflow", "azure-identity")
"""What jobs on Azure ML's base images find there and rely on."""


class Problem(msgspec.Struct, frozen=True):
    """A reason why the plan cannot be built: a code of ``errors`` and a sentence."""

    code: str
    message: str


class Variant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One way to satisfy the plan. ``python`` is a PEP 440 specifier, '' where any will do."""

    python: str = ""
    requirements: tuple[str, ...] = ()
    moved: str = ""
    overrides: tuple[str, ...] = ()


class CondaPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Conda packages asked for, the channels to ask, and what stands in for them where no channel answers."""

    channels: tuple[str, ...]
    dependencies: tuple[CondaDependency, ...]
    mapping: tuple[Mapping, ...] = ()


class ContainerPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a container runtime has to provide: an image to pull, or one to build from ``context``.

    ``conda_file`` asks for its environment to be made on top of ``image``.
    """

    runtime: str
    image: str | None = None
    context: str | None = None
    dockerfile_path: str = "Dockerfile"
    conda_file: str | None = None


class EnvironmentPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has to be there.

    ``variants`` are tried in order: the first whose Python can be had is taken. ``conda`` is present where a
    conda file names more than Python and pip. ``notes`` go to the build log, ``warnings`` also to the job's user.
    ``context`` is the folder that local requirements are relative to; ``context_digest`` stands for its content.
    """

    name: str = ""
    version: str = ""
    platform: str = ""
    curated: str | None = None
    variants: tuple[Variant, ...] = (Variant(),)
    conda: CondaPlan | None = None
    options: PipOptions = PipOptions()
    env: dict[str, str] = {}
    container: ContainerPlan | None = None
    wheels_only: bool = False
    cpu_torch: bool = False
    context: str | None = None
    context_digest: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def python(self) -> str:
        """The Python wanted, as a PEP 440 specifier ('' where any will do)."""
        return self.variants[0].python

    @property
    def requirements(self) -> tuple[str, ...]:
        """The pip requirements wanted, in order."""
        return self.variants[0].requirements

    def key_parts(self) -> dict[str, str]:
        """What the key is made of, part by part, each as a digest: tells which part of a key missed."""
        parts: dict[str, object] = {
            "format": FORMAT,
            "platform": self.platform,
            "python": [variant.python for variant in self.variants],
            "packages": [
                [sorted(map(_normal, variant.requirements)), variant.overrides] for variant in self.variants
            ],
            "conda packages": []
            if self.conda is None
            else [self.conda.channels, sorted(map(str, self.conda.dependencies))],
            "package indexes": msgspec.structs.replace(
                self.options, cert=None, client_cert=None, proxy=None, timeout_s=None, trusted_hosts=()
            ),
            "variables": sorted(self.env.items()),
            "container": self.container and msgspec.structs.replace(self.container, context=None),
            "build context": self.context_digest,
            "rules": [self.wheels_only, self.cpu_torch],
        }
        return {name: _digest(value) for name, value in parts.items()}

    def key(self) -> str:
        """Content hash of all that decides the result, 32 hexadecimal digits. Names and notes do not count."""
        return _digest(self.key_parts(), 32)


def _normal(requirement: str) -> str:
    return " ".join(requirement.split())


def _digest(value: object, length: int = 16) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:length]


def plan_environment(spec: EnvironmentSpec, catalogue: Catalogue, settings: BuildSettings) -> EnvironmentPlan:
    """Plan an environment (issue: environments). Never raises: what is wrong is in ``problems``."""
    draft = _Draft(spec, catalogue, settings)
    if spec.curated:
        draft.curated(spec.curated, spec.version)
    elif spec.build is not None:
        draft.build_context(spec.build)
    elif spec.conda_file is not None:
        draft.conda_text(spec.conda_file, spec.image)
    elif spec.image:
        draft.image(spec.image)
    else:
        draft.warnings.append("no environment was given; a plain Python is used")
    return draft.finish()


class _Draft:
    """Collects the parts of a plan while the definition is read."""

    def __init__(self, spec: EnvironmentSpec, catalogue: Catalogue, settings: BuildSettings) -> None:
        self.spec, self.find, self.settings = spec, catalogue, settings
        self.variants: tuple[Variant, ...] | None = None
        self.python = ""
        self.found = Requirements()
        self.conda: CondaPlan | None = None
        self.env: dict[str, str] = {}
        self.container: ContainerPlan | None = None
        self.curated_name: str | None = None
        self.context: str | None = None
        self.context_digest = ""
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.problems: list[Problem] = []

    # --- the four ways to ask -----------------------------------------------------------------------------

    def curated(self, name: str, version: str | None = None) -> None:
        found = self.find(name, version)
        if found is None:
            self.problem(
                errors.INVALID,
                f"there is no curated environment '{name}'{f' version {version!r}' if version else ''}; "
                "list them with `noriba environment list --registry-name azureml`",
            )
            return
        self.use_curated(found)

    def use_curated(self, found: CuratedEnvironment) -> None:
        self.curated_name = found.name
        self.env.update(found.env)
        self.variants = tuple(
            Variant(
                python=_specifier(v.python), requirements=v.requirements, moved=v.moved, overrides=v.overrides
            )
            for v in found.variants
        )

    def conda_text(self, text: str, image: str | None) -> None:
        file = conda_files.read_conda_file(text)
        runtime = self.settings.container_runtime
        if runtime and image:
            self.container = ContainerPlan(runtime=runtime, image=image, conda_file=text)
            return
        if image:
            self.notes.append(
                f"image '{image}' is not used: the Python environment comes from the conda file"
            )
        self.conda_file(file)
        self.pip_lines(file.pip or ())

    def image(self, image: str) -> None:
        if self.settings.container_runtime:
            self.container = ContainerPlan(runtime=self.settings.container_runtime, image=image)
            return
        self.base_image(image)

    def build_context(self, build: BuildContext) -> None:
        folder = ContextFolder(build.path)
        text = folder.text(build.dockerfile_path)
        if text is None:
            self.problem(
                errors.INVALID,
                f"the build context has no readable file '{build.dockerfile_path}'; set dockerfile_path to its name",
            )
            return
        if self.settings.container_runtime:
            self.context_digest = folder.digest()
            self.container = ContainerPlan(
                runtime=self.settings.container_runtime,
                context=build.path,
                dockerfile_path=build.dockerfile_path,
            )
            return
        self.dockerfile(read_dockerfile(text, folder))
        if any(is_local_path(line) for line in self.found.lines):
            self.context, self.context_digest = build.path, folder.digest()

    # --- parts --------------------------------------------------------------------------------------------

    def dockerfile(self, plan: DockerfilePlan) -> None:
        self.base_image(plan.image)
        if self.variants is not None:  # FROM a curated image: what follows adds to each variant
            extra = plan.requirements.lines
            self.variants = tuple(
                msgspec.structs.replace(v, requirements=merge(extra, _without(v.requirements, extra)))
                for v in self.variants
            )
        self.conda_file(plan.conda)
        self.found = self.found.then(plan.requirements)
        self.env.update(plan.env)
        self.warnings.extend(plan.warnings)
        for error in plan.errors:
            self.problem(errors.INVALID, error)
        if plan.system_packages:
            self.warnings.append(
                f"system packages are not installed (the node's own programs are used): {', '.join(plan.system_packages)}"
            )

    def base_image(self, image: str) -> None:
        base = recognise_image(image)
        if base is None:
            self.problem(
                errors.IMAGE_UNAVAILABLE,
                f"the image '{image}' cannot be used on this node: it runs no containers and does not know what "
                "Python packages the image holds. Set container_runtime to podman or docker on the node, or give the "
                "environment a conda file, or name a curated environment",
            )
            return
        if base.curated is not None:
            found = self.find(base.curated, None)
            if found is None:
                self.problem(
                    errors.IMAGE_UNAVAILABLE,
                    f"the image '{image}' names no curated environment known here; list them with "
                    "`noriba environment list --registry-name azureml`",
                )
                return
            self.notes.append(f"image '{image}' -> curated environment '{found.name}'")
            self.use_curated(found)
            return
        requirements = (*base.requirements, *(AZUREML_CLIENTS if base.azureml else ()))
        what = f"Python {base.python or self.settings.default_python}"
        self.notes.append(
            f"image '{image}' -> {what}{' with ' + ', '.join(requirements) if requirements else ''}"
        )
        if base.warning:
            self.warnings.append(f"image '{image}' is replaced by {what}: {base.warning}")
        self.python = _specifier(base.python)
        self.found = self.found.then(Requirements(lines=requirements))

    def conda_file(self, file: CondaFile) -> None:
        for error in file.errors:
            self.problem(errors.INVALID, error)
        self.env.update(file.variables)
        try:
            asked = conda_files.python_specifier(file.dependencies)
        except ValueError as error:
            self.problem(errors.INVALID, f"the Python version of the conda file cannot be read: {error}")
            asked = ""
        self.python = asked or self.python
        if asked and self.variants is not None:
            self.warnings.append(
                f"'python{asked}' is not considered: the base image decides its Python version"
            )
        others = tuple(dep for dep in file.dependencies if dep.name not in ("python", "pip"))
        for dependency in (dep for dep in file.dependencies if dep.name == "pip"):
            if note := conda_files.map_dependency(dependency).note:
                self.notes.append(note)
        if others or self.settings.conda == "always":
            self.conda = CondaPlan(
                channels=tuple(c for c in file.channels if c != "nodefaults")
                or self.settings.default_channels,
                dependencies=tuple(file.dependencies),
                mapping=tuple(conda_files.map_dependency(dep) for dep in others),
            )

    def pip_lines(self, lines: tuple[str, ...]) -> None:
        def no_file(name: str) -> str:
            raise FileNotFoundError(name)

        for line in lines:
            words = line.strip()
            if words.startswith("-"):
                self.found = self.found.then(read_requirements(words, no_file, "the conda file's pip list"))
            elif is_local_path(words):
                self.problem(
                    errors.INVALID,
                    f"the conda file's pip list names the local path '{words}', which is not part of the environment; "
                    "use a build context, or install it in the job's command",
                )
            else:
                self.found = self.found.then(read_requirements(words, no_file, "the conda file's pip list"))

    # --- result -------------------------------------------------------------------------------------------

    def problem(self, code: str, message: str) -> None:
        self.problems.append(Problem(code, message))

    def finish(self) -> EnvironmentPlan:
        for error in self.found.errors:
            self.problem(errors.INVALID, error)
        variants = self.variants or (Variant(python=self.python, requirements=self.found.lines),)
        return EnvironmentPlan(
            name=self.spec.name or self.curated_name or "",
            version=self.spec.version,
            platform=self.settings.platform,
            curated=self.curated_name,
            variants=tuple(
                msgspec.structs.replace(v, requirements=_with_tools(v.requirements)) for v in variants
            ),
            conda=self.conda,
            options=self.found.options.over(self.settings.pip),
            env=self.env,
            container=self.container,
            wheels_only=self.curated_name is not None or not self.settings.source_builds,
            cpu_torch=self.settings.wants_cpu_torch,
            context=self.context,
            context_digest=self.context_digest,
            notes=merge(tuple(self.notes)),
            warnings=merge((*self.found.warnings, *self.warnings)),
            problems=tuple(dict.fromkeys(self.problems)),
        )


def _specifier(python: str) -> str:
    """``3.10`` -> ``==3.10.*``; a specifier stays as it is."""
    return f"=={python}.*" if python[:1].isdigit() else python


def _without(requirements: tuple[str, ...], replaced: tuple[str, ...]) -> tuple[str, ...]:
    names = {name_of(line) for line in replaced} - {None}
    return tuple(line for line in requirements if name_of(line) not in names)


def _with_tools(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """Add pip, setuptools and wheel as conda environments have them: jobs call pip and import pkg_resources.

    pkg_resources left setuptools with version 82; whoever names setuptools gets what they name.
    """
    names = {name_of(line) for line in requirements}
    tools = {"pip": "pip", "setuptools": "setuptools<82", "wheel": "wheel"}
    return (*requirements, *(line for name, line in tools.items() if canonicalize_name(name) not in names))
