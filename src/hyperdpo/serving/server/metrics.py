"""What a server counts, for Prometheus; in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LENGTHS = (1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Metrics:
    """Counters, histograms and gauges of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("hyperdpo_requests", "Answered requests.", ("route", "code"), registry=self.registry)
        self.seconds = Histogram(
            "hyperdpo_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("hyperdpo_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.queue = Gauge(
            "hyperdpo_queue_length", "Lists or texts that wait for a place in a batch.", registry=self.registry
        )
        self.batch = Histogram(
            "hyperdpo_batch_size",
            "Lists scored, or texts that got a token, in one pass.",
            buckets=COUNTS,
            registry=self.registry,
        )
        self.lengths = Histogram(
            "hyperdpo_list_length", "Items of a scored list.", buckets=LENGTHS, registry=self.registry
        )
        self.tokens = Counter("hyperdpo_generated_tokens", "Generated tokens.", registry=self.registry)
        self.prompt_tokens = Counter("hyperdpo_prompt_tokens", "Tokens of prompts.", registry=self.registry)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
