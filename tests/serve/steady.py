"""An engine that answers at a steady pace with tokens that follow from the request alone."""

import threading
from collections import Counter

from geodapt.serve.generation import Event, Full, Statistics, Stopped


class SteadyEngine:
    """Every ``pause`` seconds each running request gets its next token.

    Without a model, so that tests of HTTP wait for nothing; ``most`` requests run, the rest is
    refused. Adapters are counted by the versions that the gates name.
    """

    def __init__(self, decode, vocabulary=200, pause=0.001, most=64):
        self.decode, self.vocabulary, self.pause, self.most = decode, vocabulary, pause, most
        self.alive = self.ready = True
        self.rows, self.counts, self.gates = [], Counter(), []
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.between = threading.Lock()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def check_room(self, beside=0):
        if len(self.rows) + beside >= self.most:
            raise Full(len(self.rows) + beside, 3)

    def submit(self, generation, on_event=None):
        if not self.alive:
            raise Stopped("the engine has died")
        with self.lock:
            self.check_room()
            self.gates.append(generation.gate)
            row = SteadyRow(self, generation, on_event)
            self.rows.append(row)
        return row

    def statistics(self):
        count = self.counts
        resident = {name for row in list(self.rows) for name in row.generation.adapters}
        return Statistics(
            running=len(self.rows),
            queued=0,
            tokens=count["tokens"],
            prompt_tokens=count["prompt"],
            requests=count["ended"],
            failed=0,
            cancelled=count["cancelled"],
            steps=count["steps"],
            step_seconds=0.0,
            kv_tokens=0,
            resident=tuple(sorted(resident)),
            adapter_hits=0,
            adapter_misses=0,
            evictions=0,
        )

    def held(self):
        """``with engine.held()``: nobody gets a token inside the block."""
        return self.between

    def die(self):
        self.alive = self.ready = False

    def close(self, seconds=0.0):
        self.stopped.set()
        self.thread.join()
        for row in list(self.rows):
            row.end("cancelled")

    def _run(self):
        while not self.stopped.wait(self.pause):
            with self.between:
                self.counts["steps"] += 1
                for row in list(self.rows):
                    row.step()


class SteadyRow:
    def __init__(self, engine, generation, on_event):
        self.engine, self.generation, self.on_event = engine, generation, on_event
        self.made, self.cancelled, self.echoed = 0, False, not generation.echo
        self.mark = hash((generation.prompt, str(generation.gate))) % 9973

    def cancel(self):
        self.cancelled = True

    def step(self):
        sampling, length = self.generation.sampling, len(self.generation.prompt)
        if self.cancelled:
            self.end("cancelled")
            return
        if not self.echoed:
            self.echoed = True
            for place, token in enumerate(self.generation.prompt):
                self.tell(token, None if place == 0 else -1.0 - place, True, None)
        if sampling.max_new_tokens == 0:
            self.end("length")
            return
        self.made += 1
        self.engine.counts["tokens"] += 1
        token = (self.mark + 31 * self.made) % self.engine.vocabulary
        last = self.made >= sampling.max_new_tokens
        if last:
            self.leave()
        self.tell(token, -0.25 * self.made, False, "length" if last else None, length)

    def tell(self, token, logprob, echoed, finish, length=0):
        wanted = self.generation.sampling.logprobs
        others = [((token + k + 1) % self.engine.vocabulary, -9.0 - k) for k in range(wanted or 0)]
        self.on_event(
            Event(
                text=self.engine.decode([token]),
                token=token,
                logprob=logprob if wanted is not None else None,
                alternatives=tuple(others) if logprob is not None else (),
                finish=finish,
                echoed=echoed,
                prompt_tokens=length,
                completion_tokens=self.made,
            )
        )

    def end(self, finish):
        if self.leave():
            self.engine.counts["cancelled"] += finish == "cancelled"
            self.on_event(
                Event(
                    finish=finish,
                    prompt_tokens=len(self.generation.prompt),
                    completion_tokens=self.made,
                )
            )

    def leave(self):
        with self.engine.lock:
            if self not in self.engine.rows:
                return False
            self.engine.rows.remove(self)
        self.engine.counts["ended"] += 1
        return True
