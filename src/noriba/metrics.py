"""Prometheus metrics of the server (``/metrics``)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

registry = CollectorRegistry()
requests = Counter(
    "noriba_requests_total", "Requests answered.", ["method", "route", "status"], registry=registry
)
request_seconds = Histogram(
    "noriba_request_seconds",
    "Time to answer a request.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
    registry=registry,
)
jobs_total = Counter("noriba_jobs_total", "Jobs that reached a status.", ["status"], registry=registry)
nodes_alive = Gauge("noriba_nodes_alive", "Nodes alive.", ["state"], registry=registry)


def observe_request(method: str, route: str, status: int, elapsed_s: float) -> None:
    """Count one answered request."""
    requests.labels(method, route, str(status)).inc()
    request_seconds.labels(route).observe(elapsed_s)


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry)
