"""The status page: one self-contained HTML file, made from the report that `status` shows.

1. The page asks for nothing: no other file, no network. Its policy (CSP) allows only its own style and script, by their
   hashes, and no inline handlers or style attributes. A page that a run serves may also connect to that run.
2. Whatever is foreign (names, reasons, paths, commands) is text: escaped in the HTML, and only ever set as text by the
   script. In the data, `<`, `>` and `&` are written as escapes, so that no text can end the script element.
3. The verdict, the figures and the first gaps are HTML. The script draws the pictures, and the tables behind them when
   they are opened, in slices, so that the page answers while it draws.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Any

import orjson

from asyncexport.core.health.missing import Again
from asyncexport.core.health.report import StatusReport
from asyncexport.core.states import BundleRecord
from asyncexport.monitor.page_data import KINDS, export_data, request_data, run_data
from asyncexport.monitor.page_text import GAPS_IN_HTML, PageText

SCRIPTS = ("values.js", "elements.js", "shapes.js", "picture.js", "days.js", "history.js", "live.js", "page.js")
"""The parts of the script, in the order in which they are joined."""

_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows.

    Attributes:
        report: The report, whose verdict comes first.
        archives: The bundles of each export that have an archive, in order of their start.
        directory: The output directory.
        version: The version of asyncexport.
        live: The name of the state that it shows, if a run serves it and keeps it up to date; else "".
    """

    report: StatusReport
    archives: Mapping[str, Sequence[BundleRecord]] = field(default_factory=dict)
    directory: str = ""
    version: str = ""
    live: str = ""


def page_html(page: Page, *, again: Again, clean: Callable[[str], str]) -> str:
    """Return the page.

    Args:
        page: What it shows.
        again: Makes a command line from a command and its arguments, for the same configuration and directory.
        clean: Makes foreign text printable and hides secrets in it.
    """
    report, text = page.report, PageText(page.report, again=again, clean=clean)
    style = _asset("page.css")
    script = f'"use strict";\n(() => {{\n{"".join(map(_asset, SCRIPTS))}}})();\n'
    return Template(_asset("page.html")).substitute(
        policy=_policy(style, script, is_live=bool(page.live)),
        title=text.state(),
        mood="good" if report.verdict.healthy else "bad",
        state=text.state(),
        reason=text.reason(),
        link=text.link(),
        beside=text.beside(),
        as_of=text.as_of(page.version, page.directory),
        live='<p id="live" class="quiet">Live.</p>' if page.live else "",
        exports="".join(text.export(number) for number in range(len(report.exports))),
        missing=text.missing(),
        style=style,
        script=script,
        data=_json(_data(page, clean=clean)),
    )


def _data(page: Page, *, clean: Callable[[str], str]) -> dict[str, Any]:
    """Return what the script needs."""
    report = page.report
    exports = [export_data(one, page.archives.get(one.overview.name, ()), clean=clean) for one in page.report.exports]
    return {
        "now": report.now,
        "live": page.live,
        "kinds": KINDS,
        "listed": GAPS_IN_HTML,
        "exports": exports,
        "runs": run_data(report.runs, clean=clean),
        "requests": request_data(report.hours),
    }


def _policy(style: str, script: str, *, is_live: bool) -> str:
    """Return the page's Content-Security-Policy (rule 1)."""
    connect = "connect-src 'self'; " if is_live else ""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        f"{connect}base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _json(data: Any) -> str:
    """Return data as JSON that can be part of an HTML page (rule 2)."""
    return orjson.dumps(data).decode().translate(_ESCAPES)


def _asset(name: str) -> str:
    return files("asyncexport.monitor").joinpath("assets", name).read_text(encoding="utf-8")
