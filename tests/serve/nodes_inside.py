"""A cluster of machines with an address each, of which two answer and one is lost.

Run by ``test_replicas.py`` in a process of its own, which has no network but loopback.
"""

import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from geodapt.serve.bulk import score_file
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start as start_one
from geodapt.serve.loading import Served as Named
from geodapt.serve.loading import load_for_bulk
from tests.commands import start
from tests.serve.asking import Served, eventually, running
from tests.serve.shelf import write_base_and_adapters

LINES = 12
FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
SIZES = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def joins(cluster, address):
    """A machine with one core, so that two actors cannot share it."""
    return cluster.add_node(num_cpus=1, node_ip_address=address, **SIZES)


def machines(kind):
    """On which of them living or ended actors of a class have been."""
    found = ray._private.state.actors().values()
    return {a["Address"]["IPAddress"] for a in found if kind in a["ActorClassName"]}


def check_scores(folder, address):
    lines = [{"prompt": f"A hose and {n} trains", "max_tokens": 9} for n in range(LINES)]
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    named = Named(base=str(folder / "base"), adapters=folder / "adapters", dtype="float32")
    score_file(folder / "in.jsonl", folder / "whole", load_for_bulk(named), "generate", "m", 1)
    options = ("--generate", "base", "--adapters", "adapters", "--dtype", "float32")
    options += ("--shard", "1", "--ray", "--ray-address", address, "--replica-cores", "1")
    process = start(folder, "score", "in.jsonl", "--out", "out", *options)
    said, told = process.communicate(timeout=600)
    assert process.returncode == 0, said + told
    assert f"{LINES} lines answered" in said
    whole = {part.name: part.read_bytes() for part in (folder / "whole").glob("part-*")}
    assert {part.name: part.read_bytes() for part in (folder / "out").glob("part-*")} == whole
    assert len(whole) == LINES
    assert machines("ShardAnswerer") == {FIRST, SECOND}


def asked(server, number, tokens):
    body = {"prompt": f"A hose and {number} trains", "max_tokens": tokens, "temperature": 0}
    body |= {"ignore_eos": True, "model": ("base", "toys", "tools")[number % 3]}
    answer = server.complete(**body, timeout=300)
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json["choices"][0]["text"]


def ready(server):
    try:
        return server.ask("GET", "/ready").status == 200
    except OSError:
        return False


def check_serving(folder, cluster, second):
    named = Named(base=str(folder / "base"), adapters=folder / "adapters", dtype="float32")
    service = start_one(named, ServeSettings())
    with running(service) as one:
        expected = [asked(one, number, 150) for number in range(12)]
    service.close()
    options = ("--ray", "--ray-address", cluster.address, "--replica-cores", "1", "--port", "0")
    names = ("base", "--adapters", "adapters", "--dtype", "float32")
    process = start(folder, "serve", *names, *options)
    try:
        said = process.stderr.readline()
        while said and not said.startswith("serving on http://127.0.0.1:"):
            said = process.stderr.readline()
        server = Served(None, int(said.rstrip("/\n").rpartition(":")[2]))
        eventually(lambda: ready(server), 120)

        def replicas():
            return server.ask("GET", "/status").json["replicas"]

        eventually(lambda: len(replicas()) == 2, 120)
        assert machines("replica") == {FIRST, SECOND}

        def lose():
            eventually(lambda: all(replica["running"] for replica in replicas()), 120)
            cluster.remove_node(second, allow_graceful=False)

        losing = threading.Thread(target=lose)
        losing.start()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: asked(server, n % 12, 150), range(48)))
        losing.join()
        assert found == [expected[n % 12] for n in range(48)]
        joins(cluster, THIRD)
        eventually(lambda: THIRD in machines("replica") and len(replicas()) == 2, 300)
        assert [asked(server, n, 150) for n in range(12)] == expected
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        print(process.communicate()[1], file=sys.stderr)


def main():
    folder = Path(sys.argv[1])
    write_base_and_adapters(folder)
    head = {"num_cpus": 0, "node_ip_address": "127.0.0.1", **SIZES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        joins(cluster, FIRST)
        second = joins(cluster, SECOND)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address)
        check_scores(folder, cluster.address)
        check_serving(folder, cluster, second)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
