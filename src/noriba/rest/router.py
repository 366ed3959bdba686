"""Which handler answers which path.

Paths are matched segment by segment without regard to case (wire.md, rule 2), parameters keep theirs. A route says
who may call it; the table of all routes is therefore also the table of what is public.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from noriba.models.errors import MethodNotAllowed, NotFound
from noriba.models.principal import Action

if TYPE_CHECKING:
    from noriba.rest.call import Call

Handler = Callable[["Call"], Awaitable[Any]]

WORKSPACE = (
    "/subscriptions/{sub}/resourceGroups/{group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
)
"""Prefix of the routes of one workspace."""

PUBLIC = "public"
"""Anybody."""
SELF = "self"
"""The handler authenticates the caller itself (signed blob addresses, token endpoints, agents)."""
SIGNED_IN = "signed in"
"""Any valid token."""
MEMBER = "member"
"""A valid token of a principal whose role in the path's workspace allows the route's action."""


class Route(NamedTuple):
    method: str
    path: str
    handler: Handler
    access: str
    action: Action


class Routes:
    """Routes of one module: ``@routes.get(WORKSPACE + "/jobs/{name}")``.

    ``{name}`` matches one segment, ``{name:path}`` the rest of the path as it is. The action is ``read`` for GET and
    HEAD and ``write`` for the others unless given; access is MEMBER for paths with ``{workspace}``.
    """

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def add(
        self, method: str, path: str, *, access: str | None = None, action: Action | None = None
    ) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            allowed = access or (MEMBER if "{workspace}" in path else SIGNED_IN)
            does: Action = action or ("read" if method in ("GET", "HEAD") else "write")
            self.routes.append(Route(method, path, handler, allowed, does))
            return handler

        return register

    def get(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("GET", path, **options)

    def put(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("PUT", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("POST", path, **options)

    def patch(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("DELETE", path, **options)

    def head(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("HEAD", path, **options)


Fallback = Callable[[str, str], tuple[Route, dict[str, str]] | None]
"""Asked for the route of a method and path that no route matches."""


class _Branch:
    __slots__ = ("literals", "parameter", "rest", "routes")

    def __init__(self) -> None:
        self.literals: dict[str, _Branch] = {}
        self.parameter: _Branch | None = None
        self.rest: dict[str, tuple[Route, list[str]]] = {}
        self.routes: dict[str, tuple[Route, list[str]]] = {}


class Router:
    """All routes, as a tree of path segments."""

    def __init__(self, *modules: Routes, fallback: Fallback | None = None) -> None:
        self._root = _Branch()
        self._fallback = fallback
        self._all: list[Route] = []
        for module in modules:
            for route in module.routes:
                self._insert(route)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._all)

    def _insert(self, route: Route) -> None:
        branch = self._root
        names: list[str] = []
        for segment in _segments(route.path):
            if segment.startswith("{") and segment.endswith(":path}"):
                names.append(segment[1:-6])
                _claim(branch.rest, route, names)
                break
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                if branch.parameter is None:
                    branch.parameter = _Branch()
                branch = branch.parameter
            else:
                branch = branch.literals.setdefault(segment.lower(), _Branch())
        else:
            _claim(branch.routes, route, names)
        self._all.append(route)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route for a decoded path and its parameters. Raises NotFound or MethodNotAllowed."""
        segments = _segments(path)
        known_methods: set[str] = set()
        found = self._find(self._root, segments, 0, [], method, known_methods)
        if found is not None:
            (route, names), values = found
            return route, dict(zip(names, values, strict=True))
        if known_methods:
            raise MethodNotAllowed(
                f"{method} is not supported here; {', '.join(sorted(known_methods))} would be.",
                info={"allow": sorted(known_methods)},
            )
        if self._fallback is not None:
            last = self._fallback(method, path)
            if last is not None:
                return last
        raise NotFound(f"No resource of this kind: {path}. Check the address.", code="InvalidResourceType")

    def _find(
        self,
        branch: _Branch,
        segments: list[str],
        index: int,
        values: list[str],
        method: str,
        known_methods: set[str],
    ) -> tuple[tuple[Route, list[str]], list[str]] | None:
        if index == len(segments):
            known_methods.update(branch.routes)
            route = branch.routes.get(method)
            if route is not None:
                return route, values
        else:
            segment = segments[index]
            literal = branch.literals.get(segment.lower())
            if literal is not None:
                found = self._find(literal, segments, index + 1, values, method, known_methods)
                if found is not None:
                    return found
            if branch.parameter is not None and segment:
                found = self._find(
                    branch.parameter, segments, index + 1, [*values, segment], method, known_methods
                )
                if found is not None:
                    return found
        if branch.rest:
            known_methods.update(branch.rest)
            rest = branch.rest.get(method)
            if rest is not None:
                return rest, [*values, "/".join(segments[index:])]
        return None


def _claim(table: dict[str, tuple[Route, list[str]]], route: Route, names: list[str]) -> None:
    if route.method in table:
        raise ValueError(f"Two handlers for {route.method} {route.path}")
    table[route.method] = (route, names)


def _segments(path: str) -> list[str]:
    return path.removeprefix("/").split("/")
