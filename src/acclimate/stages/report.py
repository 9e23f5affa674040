"""`report`: what a run folder holds, as one page to read."""

from __future__ import annotations

from pathlib import Path

from acclimate.files import write_text
from acclimate.report.folder import read_run
from acclimate.report.html import render

HTML_FILE = "report.html"


def report(run: Path) -> Path:
    """Write `run/report.html`, whole or not at all, from the files of the run; parts that are absent are named in it.

    Returns:
        the path of the page.

    Raises:
        DataError: there is no such run.
        StorageError: a part of it is damaged, or the page cannot be written.
    """
    page = run / HTML_FILE
    write_text(page, render(read_run(run)))
    return page
