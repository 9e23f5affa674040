"""Every test of this room is followed by a look for leaks in the runs that it left."""

from tests.leak_check import no_run_leaks  # noqa: F401
