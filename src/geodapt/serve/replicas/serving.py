"""``geodapt serve --ray``: the front in this process, the replicas in Ray's."""

import socket
from collections.abc import Callable

from geodapt.errors import InputError
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.http.app import around
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.server import serve_until_told
from geodapt.serve.http.service import Service
from geodapt.serve.http.starting import NoShelf
from geodapt.serve.replicas.cluster import Replicas, absolute, reported, running
from geodapt.serve.replicas.front import build_front
from geodapt.serve.replicas.reports import Reports
from geodapt.serve.served import Served


def serve_replicas(
    served: Served,
    settings: ServeSettings,
    wanted: Replicas,
    listening: socket.socket,
    tell: Callable[[str], None],
    started: Callable[[], None] = lambda: None,
) -> int:
    """Serve until told, as :func:`serve_until_told` does; the exit status.

    ``started`` is called when requests are taken. Raises :class:`InputError` for what cannot be
    served, and for stored lists that replicas would not share.
    """
    served.check()
    if served.scores and served.store is None:
        raise InputError(
            "replicas share catalogues and indexes by a folder; name one that all of them reach "
            "(--store)"
        )
    with running(absolute(served), settings, wanted) as handle:
        metrics = ServerMetrics(lambda: reports.statistics())
        reports = Reports(lambda: reported(handle), first_token=metrics.first_token.observe)
        service = Service(
            settings,
            reports,
            AdapterFolder(None, NoShelf()),
            None,
            metrics,
            recent=reports.recent,
            replicas=reports.replicas,
            close=reports.close,
        )
        front = build_front(service, handle.options(stream=True, method_name="answer"))
        started()
        return serve_until_told(service, listening, tell, around(front, service))
