"""A connection that is signed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from noriba.client.connection import Answer, Connection
from noriba.client.errors import ApiError, ClientError, NoServer
from noriba.client.target import Target


class Session:
    """Calls to the server of a target as its user; workspace paths start with ``self.workspace``."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.connection = Connection(target.base_url, target.ca_files)
        self.workspace = target.workspace_path
        self._token = ""

    def token(self, *, lifetime_s: int | None = None) -> str:
        """A new access token for the server. Raises ApiError when the secret is not (or no more) good."""
        return self.token_for(self.target.base_url, lifetime_s=lifetime_s)[0]

    def token_for(self, resource: str, *, lifetime_s: int | None = None) -> tuple[str, int]:
        """A new access token for a resource, and when it expires (seconds since the epoch)."""
        answer = self._connected(
            "GET",
            "/msi/token",
            query={"resource": resource, "lifetime_s": lifetime_s},
            headers={"secret": self.target.secret},
        )
        document = answer.json()
        if answer.status != 200 or not isinstance(document, dict):
            raise ApiError.from_answer(answer.status, document, "The server gives no token.")
        return str(document["access_token"]), int(document["expires_on"])

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; the answer's status is below 400. Raises ApiError with the server's words otherwise."""
        sent = dict(headers or {})
        body = None
        if json is not None:
            body = msgspec.json.encode(json)
            sent["Content-Type"] = "application/json"
        for renewed in (False, True):
            if not self._token or renewed:
                self._token = self.token()
            sent["Authorization"] = f"Bearer {self._token}"
            answer = self._connected(method, path, query=query, headers=sent, body=body)
            if answer.status != 401:
                break
        if answer.status >= 400:
            raise self._error(answer, f"{method} {path.partition('?')[0]}: HTTP {answer.status}")
        return answer

    def get(self, path: str, *, query: Mapping[str, str | int | None] | None = None) -> Any:
        """The JSON at a path."""
        return self.call("GET", path, query=query).json()

    def pages(self, path: str, *, query: Mapping[str, str | int | None] | None = None) -> Iterator[Any]:
        """The items of a list, page after page (``nextLink`` is followed as it is)."""
        document = self.get(path, query=query)
        while True:
            yield from document.get("value") or []
            following = document.get("nextLink")
            if not following:
                return
            document = self.get(following)

    def _connected(self, method: str, path: str, **options: Any) -> Answer:
        try:
            return self.connection.request(method, path, **options)
        except NoServer as error:
            raise NoServer(f"{error} Start one with: noriba up{self.target.home_flag}") from error

    def _error(self, answer: Answer, fallback: str) -> ClientError:
        error = ApiError.from_answer(answer.status, answer.json(), fallback)
        if error.target == "workspace" and error.status in (403, 404) and self.target.workspace_source:
            error.message += f" (The workspace was named by {self.target.workspace_source}.)"
        return error
