"""What Prometheus reads at /metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server; not the library's global ones, which would add up several servers of a process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "pgembed_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "pgembed_request_seconds", "From the request to the whole answer", ["route"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge("pgembed_requests_in_flight", "Requests being answered now", registry=registry)
        self._batch = Histogram("pgembed_batch_size", "Queries a run of the model", buckets=_SIZES, registry=registry)
        self._embedding = Histogram(
            "pgembed_embedding_seconds", "Of a run of the model", buckets=_SECONDS, registry=registry
        )
        self._queue = Gauge("pgembed_queue_waiting", "Queries that wait to be embedded", registry=registry)
        self._refused = Counter("pgembed_refused", "Requests refused because too many were at work", registry=registry)
        self._generation = Gauge("pgembed_answering_generation", "The generation that answers", registry=registry)
        self._pool = Gauge("pgembed_pool", "Connections to the database", ["figure"], registry=registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def in_flight(self, change: int) -> None:
        """Count a request that began or ended."""
        self._in_flight.inc(change)

    def refused(self) -> None:
        """Count a request that was one too many."""
        self._refused.inc()

    def embedded(self, size: int, seconds: float) -> None:
        """Count a run of the model."""
        self._batch.observe(size)
        self._embedding.observe(seconds)

    def watch_queue(self, waiting: Callable[[], float]) -> None:
        """Ask `waiting` for the queue's length whenever it is read."""
        self._queue.set_function(waiting)

    def answers_from(self, generation_id: int) -> None:
        """Note which generation answers."""
        self._generation.set(generation_id)

    def text(self, pool: dict[str, int]) -> bytes:
        """Return Prometheus' text format."""
        for figure in ("pool_size", "pool_available", "requests_waiting"):
            self._pool.labels(figure).set(pool.get(figure, 0))
        return generate_latest(self._registry)
