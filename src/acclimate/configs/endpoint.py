"""Settings of a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_above, check_at_least
from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """A language model that is asked over HTTP. Its key is the environment's `ACCLIMATE_LLM_API_KEY`."""

    llm: str | None = None
    """Address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1."""
    llm_model: str | None = None
    """The model's name at that endpoint."""
    llm_requests_per_minute: float | None = None
    """Most requests per minute; no limit if not given."""
    llm_parallel: int = 4
    """Requests under way at the same time."""

    def __post_init__(self) -> None:
        if (self.llm is None) != (self.llm_model is None):
            raise UsageError("only one of --llm and --llm-model is given", fix="Give both, or neither.")
        check_at_least("llm_parallel", self.llm_parallel, 1)
        if self.llm_requests_per_minute is not None:
            check_above("llm_requests_per_minute", self.llm_requests_per_minute, 0.0)
