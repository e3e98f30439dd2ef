"""Whether a request can ever be answered by a model, before it waits."""

from dataclasses import replace

from geodapt.adapters.bank import AdapterBank
from geodapt.adapters.gates import Gate, Mix, Off, Route, TopAtoms
from geodapt.errors import InputError
from geodapt.serve.generation import EngineSettings, Generation
from geodapt.serve.passes import Passes
from geodapt.serve.sampling import Sampler


def checked_generation(
    generation: Generation,
    passes: Passes,
    settings: EngineSettings,
    bank: AdapterBank | None,
    writes: bool,
) -> Generation:
    """The request with the gate of one row.

    ``writes``: whether a tokenizer turns tokens into text. Raises :class:`InputError` for what the
    model, its cache or the settings have no room for, and for what makes no sense.
    """
    sampling, prompt = generation.sampling, generation.prompt
    if not prompt:
        raise InputError("the prompt is empty; give at least one token")
    wrong = [token for token in prompt if not 0 <= token < passes.vocabulary]
    if wrong:
        raise InputError(
            f"the prompt holds token {wrong[0]}; the vocabulary has 0 to {passes.vocabulary - 1}"
        )
    if sampling.max_new_tokens > settings.most_new_tokens:
        raise InputError(
            f"max_new_tokens is {sampling.max_new_tokens}; at most {settings.most_new_tokens} are "
            "made here"
        )
    if sampling.stop and not writes:
        raise InputError("stop texts need a tokenizer, and this engine has none")
    if generation.echo and passes.encodes and sampling.logprobs is not None:
        raise InputError("an encoder-decoder gives its prompt no log probabilities; leave echo")
    tokens = len(prompt) + sampling.max_new_tokens
    if passes.longest is not None and tokens > passes.longest:
        raise InputError(
            f"{len(prompt)} tokens of prompt and {sampling.max_new_tokens} new ones are more than "
            f"the model's {passes.longest} positions"
        )
    if tokens > settings.kv_tokens:
        raise InputError(
            f"{tokens} tokens are more than the cache's {settings.kv_tokens}; ask for less"
        )
    Sampler(sampling, (), passes.vocabulary)
    return replace(generation, gate=_of_one_row(generation.gate, bank))


def _of_one_row(gate: Gate | None, bank: AdapterBank | None) -> Gate | None:
    if isinstance(gate, TopAtoms) and gate.of is None and bank is not None:
        gate = TopAtoms(gate.keep, Mix(dict.fromkeys(bank.names, 1.0)), gate.per)
    if gate is not None and len(gate.entries) != 1:
        raise InputError(
            f"a request is one row, and its gate has {len(gate.entries)} entries; give a Mix"
        )
    if isinstance(gate, Off):
        return None
    return Mix(dict(gate.entries[0])) if isinstance(gate, Route) else gate
