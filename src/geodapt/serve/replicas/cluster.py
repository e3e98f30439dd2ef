"""Ray: a cluster of this machine or one that is there, and the replicas in it."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import torch

from geodapt.errors import InputError
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.replicas.replica import Replica, ReplicaReport
from geodapt.serve.served import Served

OBJECTS = 128 * 2**20
"""Bytes of Ray's store of large objects, which answers never need."""
WAITING = 5.0
"""Seconds for replicas to say what they do."""
STARTED = 60.0
"""Seconds for replicas to say whether they have anything to serve."""


@dataclass(frozen=True)
class Replicas:
    """What is started."""

    count: int
    address: str | None = None
    """A cluster's ``host:port``; None makes one of this machine."""
    cores: int | None = None
    """Of each replica; None shares this machine's out."""


@contextmanager
def joined(address: str | None, cores: int, accelerators: int = 0) -> Iterator[None]:
    """A connection to a cluster until the block ends; one of this machine ends with it.

    Nothing is told to Ray's makers. A cluster of this machine asks its members for a token.
    Raises :class:`InputError` for a cluster that does not answer.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # at 15 anything else starves the replicas
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        if "RAY_AUTH_MODE" not in os.environ:  # read when Ray is imported
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": cores,
            "num_gpus": accelerators,
            "object_store_memory": OBJECTS,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        options["address"] = address
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "no cluster could be started here" if address is None else f"'{address}'"
        raise InputError(f"Ray: {where}: {str(error).splitlines()[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def shared_out(wanted: Replicas) -> tuple[int, int]:
    """Cores of each replica, and the GPUs of this machine, of which each gets one.

    Raises :class:`InputError` where there are too few.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.address is None and gpus and gpus < wanted.count:
        raise InputError(
            f"{wanted.count} replicas want a GPU each, and this machine has {gpus}; give "
            f"--replicas {gpus}"
        )
    return wanted.cores or max(1, (os.cpu_count() or 1) // wanted.count), gpus


@contextmanager
def running(served: Served, settings: ServeSettings, wanted: Replicas) -> Iterator[Any]:
    """Handle of replicas that are ready to answer, until the block ends.

    Raises :class:`InputError` for what cannot be served or started.
    """
    cores, gpus = shared_out(wanted)
    each = {"num_cpus": cores, "num_gpus": 1 if gpus else 0}
    with joined(wanted.address, cores * wanted.count, gpus):
        from ray import serve
        from ray.serve.schema import LoggingConfig

        logs = LoggingConfig(log_level="ERROR", enable_access_log=False)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled", logging_config=logs)
        deployment = serve.deployment(
            name="replica",
            num_replicas=wanted.count,
            max_ongoing_requests=served.slots + served.queue,
            max_queued_requests=served.queue,
            ray_actor_options=each,
            health_check_period_s=1,
            graceful_shutdown_timeout_s=1,  # the front waits before it ends them
            logging_config=logs,
        )(Replica)
        keyless = settings.model_copy(update={"api_keys": [], "admin_keys": []})
        name = f"geodapt-{uuid4().hex[:8]}"
        try:
            bound = deployment.bind(served, keyless, cores)
            try:
                handle = serve.run(bound, name=name, route_prefix=None)
            except RuntimeError as error:
                raise InputError(f"Ray could not start the replicas: {error}") from error
            for refused in handle.broadcast("refused").results(timeout_s=STARTED):
                if refused is not None:
                    raise InputError(refused)
            yield handle
        finally:
            with suppress(Exception):
                serve.delete(name)


def reported(handle: Any) -> list[ReplicaReport]:
    """What each replica says now."""
    return list(handle.broadcast("report").results(timeout_s=WAITING))


def absolute(served: Served) -> Served:
    """The same with whole paths, as replicas run in folders of their own."""
    changed: dict[str, Any] = {}
    for name in ("base", "rank", "classify", "embed"):
        source = getattr(served, name)
        if source and os.path.isdir(os.path.expanduser(source)):  # noqa: PTH112, PTH111
            changed[name] = os.path.abspath(os.path.expanduser(source))  # noqa: PTH100, PTH111
    for name in ("adapters", "store"):
        if (folder := getattr(served, name)) is not None:
            changed[name] = folder.expanduser().absolute()
    return replace(served, **changed)
