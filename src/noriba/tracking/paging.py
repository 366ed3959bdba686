"""Page tokens: opaque to clients, an offset to us."""

from __future__ import annotations

import base64
import binascii

import msgspec

from noriba.tracking.errors import invalid


class _Page(msgspec.Struct):
    offset: int


def offset_of(token: str | None) -> int:
    """The offset that a page token stands for, 0 without one. Raises BadRequest for what is no token of ours."""
    if not token:
        return 0
    try:
        page = msgspec.json.decode(base64.b64decode(token, validate=True), type=_Page)
    except (binascii.Error, ValueError) as error:
        raise invalid("Invalid page token. Pass the next_page_token of the page before.") from error
    if not 0 < page.offset < 2**31:
        raise invalid("Invalid page token. Pass the next_page_token of the page before.")
    return page.offset


def token_of(offset: int) -> str:
    """The token for the page that starts at an offset."""
    return base64.b64encode(msgspec.json.encode(_Page(offset))).decode()
