"""What Prometheus reads: of requests, and of the engine at the moment of reading."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from geodapt.serve.generation import Statistics

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
GAUGES = {
    "running": "rows that run",
    "queued": "requests that wait",
    "kv_tokens": "tokens in the caches of running rows",
}
COUNTERS = {
    "tokens": "tokens made",
    "prompt_tokens": "tokens of prompts read",
    "requests": "generations that ended",
    "failed": "generations that ended with an error",
    "cancelled": "generations that were cancelled",
    "steps": "steps of the engine",
    "step_seconds": "seconds of all steps",
    "adapter_hits": "generations whose adapters were on the device",
    "adapter_misses": "generations that had to wait for an adapter's place",
    "evictions": "adapters that made room",
}


class ServerMetrics:
    """A registry of its own, so that several servers fit into one process."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self.registry = CollectorRegistry()
        labels = ["route", "method", "status"]
        self.requests = Counter(
            "geodapt_http_requests", "requests answered", labels, registry=self.registry
        )
        self.seconds = Histogram(
            "geodapt_http_request_seconds",
            "from a request's head to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "geodapt_first_token_seconds",
            "from a request to its first token",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(_EngineCollector(statistics))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector:
    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        now = self._statistics()
        for name, said in GAUGES.items():
            yield GaugeMetricFamily(f"geodapt_engine_{name}", said, getattr(now, name))
        for name, said in COUNTERS.items():
            yield CounterMetricFamily(f"geodapt_engine_{name}", said, getattr(now, name))
        resident = GaugeMetricFamily(
            "geodapt_adapter_resident", "adapters on the device", labels=["name", "version"]
        )
        for version in now.resident:
            name, _, digest = version.partition("#")
            resident.add_metric([name, digest], 1)
        yield resident
