"""A server of its own process behind a steady engine, which dies when it is sent SIGUSR1."""

import signal
import sys
from pathlib import Path

from geodapt.adapters import AdapterBank
from geodapt.serve.http.server import listen, serve_until_told
from tests.serve.asking import make_service
from tests.serve.shelf import small_base, small_tokenizer
from tests.serve.steady import SteadyEngine


def main() -> None:
    tokenizer = small_tokenizer()
    engine = SteadyEngine(tokenizer.decode, pause=0.05)
    bank = AdapterBank(small_base(tokenizer))
    drain = float(sys.argv[1])
    service = make_service(engine, bank, tokenizer, Path(sys.argv[2]), drain_seconds=drain)
    service.close = engine.close
    signal.signal(signal.SIGUSR1, lambda *_: engine.die())
    listening = listen("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    sys.exit(serve_until_told(service, listening))
