"""What Prometheus reads: requests, tokens, batches, latency by phase, adapters, indexes, failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from acclimate.serve.engine import BatchRecord
    from acclimate.serve.opening import Service
    from acclimate.serve.result_cache import ResultCache

Phase: TypeAlias = Literal["queue", "compute", "index", "reply"]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FILL = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 2.0)
METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})


class Metrics:
    """All counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Begin to count."""
        own = self.registry = CollectorRegistry()
        self._of_replies = cache(self._labelled)
        self.requests = Counter(
            "acclimate_requests", "Requests that were answered.", ("route", "method", "status"), registry=own
        )
        self.seconds = Histogram(
            "acclimate_request_seconds",
            "From a request's head to its reply.",
            ("route",),
            buckets=SECONDS,
            registry=own,
        )
        self.phases = Histogram(
            "acclimate_phase_seconds", "What requests and batches wait for.", ("phase",), buckets=SECONDS, registry=own
        )
        self.in_flight = Gauge("acclimate_requests_in_flight", "Requests that are not answered yet.", registry=own)
        self.tokens = Counter("acclimate_tokens", "Tokens that were computed.", ("model", "work"), registry=own)
        self.batch_rows = Histogram("acclimate_batch_rows", "Rows of a batch.", ("work",), buckets=ROWS, registry=own)
        self.batch_fill = Histogram(
            "acclimate_batch_fill", "Tokens of a batch over what it may have.", ("work",), buckets=FILL, registry=own
        )
        self.failed_rows = Counter("acclimate_failed_rows", "Rows whose computation failed.", registry=own)
        self.queue_rows = Gauge("acclimate_queue_rows", "Rows that wait to be computed.", registry=own)
        self.queue_tokens = Gauge("acclimate_queue_tokens", "Tokens that wait to be computed.", registry=own)
        self.queue_wait = Gauge("acclimate_queue_wait_seconds", "What a request would wait now, about.", registry=own)
        self.ready = Gauge("acclimate_ready", "1 where requests are answered.", registry=own)
        self.adapter_bytes = Gauge("acclimate_adapter_bytes", "Memory of all adapters.", registry=own)
        self.cache_bytes = Gauge("acclimate_cache_bytes", "Memory of the vectors that are kept.", registry=own)
        self.cache_uses = Gauge(
            "acclimate_cache_uses", "How often a vector was there already, or was not.", ("found",), registry=own
        )
        self.models = Gauge("acclimate_model", "1 for each model that is served.", ("name", "sha256"), registry=own)
        self.documents = Gauge("acclimate_index_documents", "Documents of an index.", ("index",), registry=own)
        self.epoch = Gauge("acclimate_index_epoch", "Number of an index's last change.", ("index",), registry=own)
        self.lag = Gauge(
            "acclimate_index_lag", "Changes that had come since the index was last looked at.", ("index",), registry=own
        )
        self.impressions = Counter(
            "acclimate_impressions",
            "Searches whose hits were kept, or not, for feedback.",
            ("index", "kept"),
            registry=own,
        )
        self.marks = Counter(
            "acclimate_marks", "Marks that were stored, repeated or refused.", ("index", "result"), registry=own
        )
        self.results = ResultMetrics(own)
        self.answers = Counter("acclimate_answers", "Questions, by what became of them.", ("outcome",), registry=own)
        self.struck = Counter(
            "acclimate_citations_struck", "Citations of what was not retrieved, which were left out.", registry=own
        )
        self.failures = Counter(
            "acclimate_maintenance_failures", "What failed beside the requests.", ("what",), registry=own
        )

    def replied(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a reply."""
        count, histogram = self._of_replies(route, method if method in METHODS else "other", status)
        count.inc()
        histogram.observe(seconds)

    def _labelled(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """What counts the replies of a route."""
        return self.requests.labels(route, method, str(status)), self.seconds.labels(route)

    def batch(self, done: BatchRecord) -> None:
        """Count a batch; the engine's thread calls it."""
        self.batch_rows.labels(done.work).observe(done.rows)
        self.batch_fill.labels(done.work).observe(done.fill)
        self.phases.labels("queue").observe(done.waited_s)
        self.phases.labels("compute").observe(done.compute_s)
        self.failed_rows.inc(done.failed_rows)
        for model, tokens in done.tokens_by_model.items():
            # Clients choose the weights of a mixture: one label for each would never end.
            self.tokens.labels("mixture" if "+" in model else model, done.work).inc(tokens)

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Measure what is done inside."""
        started = perf_counter()
        try:
            yield
        finally:
            self.phases.labels(phase).observe(perf_counter() - started)

    def page(self, service: Service | None) -> bytes:
        """Write everything in Prometheus' text format."""
        self.ready.set(0)
        if service is not None:
            queue = service.engine.queue()
            self.ready.set(service.engine.ready)
            self.queue_rows.set(queue.rows)
            self.queue_tokens.set(queue.tokens)
            self.queue_wait.set(queue.wait_s)
            self.adapter_bytes.set(service.registry.bytes_used)
            if (cache := service.engine.cache()) is not None:
                self.cache_bytes.set(cache.bytes)
                self.cache_uses.labels("yes").set(cache.hits)
                self.cache_uses.labels("no").set(cache.misses)
            self.models.clear()
            for model in service.registry.models():
                self.models.labels(model.name, model.sha256 or model.base_sha256).set(1)
        return generate_latest(self.registry)


class ResultMetrics:
    """What is counted of the caches of replies."""

    def __init__(self, own: CollectorRegistry) -> None:
        self.result_bytes = Gauge("acclimate_result_cache_bytes", "Memory of the replies that are kept.", registry=own)
        self.result_uses = Gauge(
            "acclimate_result_cache_uses",
            "How often the reply to a request was there, or was not.",
            ("found",),
            registry=own,
        )
        self.semantic = Gauge(
            "acclimate_semantic_cache",
            "What became of the requests that the semantic cache was asked for.",
            ("what",),
            registry=own,
        )
        self.semantic_bound = Gauge(
            "acclimate_semantic_cache_false_hit_bound",
            "Share of its hits that is wrong at most, with 95 % confidence (Clopper-Pearson, of the audited hits).",
            registry=own,
        )

    def kept(self, results: ResultCache) -> None:
        """Take over what the caches of replies have counted."""
        self.result_bytes.set(results.bytes_used)
        self.result_uses.labels("yes").set(results.exact_hits)
        self.result_uses.labels("no").set(results.exact_misses)
        if (counts := results.counts) is None:
            return
        for what in ("queries", "hits", "shadows", "audited", "false_hits", "vetoed"):
            self.semantic.labels(what).set(getattr(counts, what))
        self.semantic_bound.set(counts.bound)
