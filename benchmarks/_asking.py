"""Asks a server for all of standard input's completions at once: ``python _asking.py PORT``."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection


def main() -> None:
    port, bodies = int(sys.argv[1]), json.load(sys.stdin)

    def ask(body: dict) -> dict:
        connection = HTTPConnection("127.0.0.1", port, timeout=600)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        return json.loads(connection.getresponse().read())

    with ThreadPoolExecutor(len(bodies)) as pool:
        json.dump(list(pool.map(ask, bodies)), sys.stdout)


if __name__ == "__main__":
    main()
