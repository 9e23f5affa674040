"""Settings of `serve`. They are taken from flags and --config, never from a run's own `config.toml`: opening somebody
else's run must not open a port to the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_above, check_at_least, check_fraction
from acclimate.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """A service over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs --keys."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    keys: str | None = None
    """TOML file of API keys and their rights; without it, whoever reaches the port may read and write."""
    public: bool = False
    """Listen on a public address without keys: only where something in front of the service checks who calls."""
    cors: tuple[str, ...] = ()
    """Origins whose web pages may call the service, such as https://intranet.example; none by default."""
    default_input_type: Literal["query", "document"] | None = None
    """What a text is where a request does not say; if not given, such a request is refused where it matters."""
    accept_token_ids: bool = False
    """Accept token ids of this model's own tokenizer in place of texts. Clients that send ids unasked (LangChain) send
    those of another tokenizer, which give plausible, wrong vectors."""
    read_only: bool = False
    """Be a replica: refuse documents and adapters, and follow what the writer and trainings change on disk."""
    adapter_root: str | None = None
    """Folder below which POST /v1/adapters may load adapters; without it none can be loaded."""
    max_body_mb: float = 16.0
    """Largest request, in MB."""
    max_inputs: int = 2048
    """Most texts or documents of a request."""
    max_request_tokens: int = 300_000
    """Most tokens of a request, whatever its shape."""
    batch_tokens: int = 2048
    """Most tokens computed at once; the longest that a short request can be held up by another one."""
    cache_mb: float = 64.0
    """Memory for vectors that were computed before, in MB; 0 keeps none."""
    results_mb: float = 16.0
    """Memory for replies to searches and questions, for the same request again, in MB; 0 keeps none."""
    semantic_entries: int = 0
    """Most results that are kept for requests that mean the same (reranked searches and answers only); 0 keeps none.
    One is served only where what was learned of it makes it about sure; the reply says so."""
    max_adapters_mb: float = 1024.0
    """Most memory of all adapters together, in MB; one more is refused."""
    deadline_s: float = 30.0
    """Longest time that a request may take, in seconds. One that could not be answered within it, because too much is
    waiting, is refused at once, with the time after which to try again."""
    answer_deadline_s: float = 120.0
    """Longest time that a request for an answer may take, with what the language model needs, in seconds."""
    drain_s: float = 20.0
    """Longest time that requests under way get when the service is stopped, in seconds."""
    idle_s: float = 10.0
    """Longest time that a client may take over the head or the body of a request, or over taking its reply, in
    seconds."""
    feedback: bool = False
    """Keep what searches show and what searchers mark, in RUN/feedback.sqlite: queries are stored as they are typed."""
    swaps: float = 0.0
    """With feedback: share of the searches in which one pair of neighbours among the hits is put in random order, by
    which clicks are corrected for their places."""
    poll_s: float = 2.0
    """How often keys, RUN/adapter and indexes are looked at for changes, in seconds."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port = {self.port}", possible="0 to 65535")
        for name in ("max_inputs", "max_request_tokens", "batch_tokens"):
            check_at_least(name, getattr(self, name), 1)
        times = ("deadline_s", "answer_deadline_s", "drain_s", "idle_s", "poll_s")
        for name in ("max_body_mb", "max_adapters_mb", *times):
            check_above(name, getattr(self, name), 0)
        check_fraction("swaps", self.swaps)
        if self.swaps and not self.feedback:
            raise UsageError(f"swaps = {self.swaps:g} without feedback", fix="Add --feedback, or leave it out.")
        for name in ("cache_mb", "results_mb", "semantic_entries"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} = {getattr(self, name)}", possible="0 or more")
        if self.keys is None and not self.public and self.host not in LOOPBACK:
            raise UsageError(
                f"host = {self.host!r} can be reached by others, and no keys are given: anybody could read and change "
                "the documents",
                fix="Give --keys FILE; or --public, if something in front of the service checks who calls.",
            )
        if "*" in self.cors and self.keys is None:
            raise UsageError(
                "cors = '*' without keys: any web page that somebody opens could call the service",
                fix="Name the origins, or give --keys FILE.",
            )
