"""Where Studio links lead: until the web application is here, a page that says how to see the same on the command line."""

from __future__ import annotations

import html
import re
from typing import Any

from starlette.responses import HTMLResponse, RedirectResponse

from noriba.rest.call import Call
from noriba.rest.router import PUBLIC, Routes

routes = Routes()

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Noriba</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1rem; }}
pre {{ background: #f4f4f4; padding: 1rem; overflow: auto; }}
</style>
<h1>Noriba</h1>
<p>The server is running. Its web application is not part of this version; everything is on the command line:</p>
<pre>{commands}</pre>
</html>
"""
_JOB = re.compile(r"jobs/([A-Za-z0-9_-]+)/?")


@routes.get("/", access=PUBLIC)
async def root(call: Call) -> Any:
    """A person who opens the server's address in a browser."""
    return RedirectResponse("/studio/")


@routes.get("/studio/{page:path}", access=PUBLIC)
async def studio(call: Call) -> Any:
    """The page. It tells nothing that is not in the address."""
    commands = ["noriba status", "noriba job list"]
    job = _JOB.fullmatch(call.params["page"])
    if job:
        commands = [f"noriba job {verb} --name {job[1]}" for verb in ("show", "stream", "download")]
    return HTMLResponse(_PAGE.format(commands=html.escape("\n".join(commands))))
