"""`report`: what a run folder holds, as one page to read."""

from __future__ import annotations

from pathlib import Path

from acclimate.files import REPORT_FILE, write_text
from acclimate.ownership import check_replaceable
from acclimate.report import html, images_page, tasks_page
from acclimate.report.folder import RunParts, read_run, read_task
from acclimate.runs.records import not_page
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.versions import in_use


def report(run: Path) -> Path:
    """Write `run/report.html`, whole or not at all, from the files of the run; parts that are absent are named in it.

    Of several tasks it shows all side by side, and `run/tasks/NAME/report.html` is the page of each.

    Returns:
        the path of the page.

    Raises:
        DataError: there is no such run.
        StorageError: a part of it is damaged, or the page cannot be written.
        UsageError: a file of that name is not ours.
    """
    folder = RunFolder(run)
    in_use(folder.adapter)  # put back, where a kill has taken it away
    whole = read_run(run)
    tasks = (whole.summary or {}).get("tasks", {})
    for page in (folder.page, *(folder.task(name).page for name in tasks)):
        check_replaceable(page, not_page)
    for name in tasks:
        write_text(folder.task(name).page, html.render(read_task(run, whole, name)))
    write_text(folder.page, _page(run, whole))
    return folder.page


def _page(run: Path, whole: RunParts) -> str:
    """The page of several tasks, of images where nothing was measured on texts, or of one task."""
    if (whole.summary or {}).get("tasks"):
        return tasks_page.render(whole)
    if (RunFolder(run).image_evaluation / REPORT_FILE).is_file() and not whole.test:
        return images_page.render(run, whole)
    return html.render(whole)
