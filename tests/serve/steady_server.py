"""A server of its own process behind a steady engine, which dies when it is sent SIGUSR1, and makes
what is left at once when it is sent SIGUSR2."""

import signal
import sys
from pathlib import Path

from geodapt.adapters import AdapterBank
from geodapt.serve.http.serve_settings import listen
from geodapt.serve.http.server import serve_until_told
from tests.serve.asking import make_service
from tests.serve.shelf import small_base, small_tokenizer
from tests.serve.steady import SteadyEngine


def serve_steadily(folder: Path, drain: float) -> None:
    """Print the port, serve, and end with the server's status."""
    tokenizer = small_tokenizer()
    engine = SteadyEngine(tokenizer.decode, pause=0.5)
    bank = AdapterBank(small_base(tokenizer))
    service = make_service(engine, bank, tokenizer, folder, drain_seconds=drain)
    service.close = engine.close
    signal.signal(signal.SIGUSR1, lambda *_: engine.die())
    signal.signal(signal.SIGUSR2, lambda *_: setattr(engine, "pause", 0.001))
    listening = listen("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    sys.exit(serve_until_told(service, listening))
