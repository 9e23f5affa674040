"""What a person sees of long work where there is no terminal."""

from __future__ import annotations

from datetime import timedelta

import pytest

from acclimate import progress as module
from acclimate.progress import progress


@pytest.mark.parametrize(
    ("seconds", "unit", "shown"),
    [
        (0.001, "tokens", "1,000 tokens/s"),
        (0.25, "queries", "4.0 queries/s"),
        (2.5, "steps", "2.5 s/step"),
        (4.0, "queries", "4.0 s/query"),
    ],
)
def test_a_rate_is_never_shown_as_nothing(
    seconds: float, unit: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training of 2.5 seconds a step said "0 steps/s" to its end."""
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "PLAIN_INTERVAL_S", 0.0)
    with progress("training", 100, unit) as advance:
        now = 10 * seconds
        advance(10)
    left = timedelta(seconds=round(90 * seconds))
    assert capsys.readouterr().err == f"training: 10 %, {shown}, ETA {left}\n"


def test_while_nothing_is_done_there_is_no_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first report of no work said "0.0 steps/s, ETA 0 s"."""
    monkeypatch.setattr(module, "PLAIN_INTERVAL_S", 0.0)
    with progress("training", 100, "steps") as advance:
        advance(0)
    assert capsys.readouterr().err == ""
