"""Scheduler: which rows are computed together, and which requests are refused. It knows neither torch nor asyncio, and
has no clock: every call says what time it is.

A request is a job of rows. A row's turn is fixed when the job comes: the moment at which it would be computed if the
job had half of the machine, or, where that is earlier, the last moment at which the job can still meet its deadline.
Batches are filled in the order of the turns. So rows of a large job give way to small ones that come later, and no row
waits for ever: nothing that comes after its turn goes before it.

What a job costs is counted in seconds: tokens, over the rate at which its kind of work was measured to be done.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for, and how batches are cut."""

    request_rows: int = 2048
    """Texts of one request."""
    request_tokens: int = 300_000
    """Tokens of one request, as the model reads them."""
    batch_tokens: int = 1024
    """Tokens of one batch; a single longer row is a batch of its own. Small batches answer soon, large ones cost less
    per token."""
