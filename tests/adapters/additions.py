"""Adapters with biases and rows of tokens, on models of several kinds."""

import torch
from peft import LoraConfig, get_peft_model

from geodapt.adapters import AdapterBank
from tests.adapters import kinds
from tests.adapters.kinds import (
    bart,
    bert,
    gemma,
    gpt2,
    llama,
    tied_llama,
    vit,
    wav2vec2,
)
from tests.adapters.made_by_peft import output, randomise
from tests.tiny_models import NARROW, tiny

TOKENS = [7, 9]


def masked():
    """Its decoder shares a bias with the module that holds it."""
    return tiny("BertForMaskedLM", NARROW)


def classifier():
    return tiny("BertForSequenceClassification", NARROW)


def mamba():
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    return tiny("MambaForCausalLM", sizes)


def t5():
    """Its embedding is tied to those of both towers and to the head."""
    sizes = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1}
    return tiny("T5ForConditionalGeneration", sizes, num_heads=2)


CASES = {
    "biases of adapted layers": (bert, ["query", "dense"], {"bias": "lora_only"}),
    "all biases": (bert, ["query"], {"bias": "all"}),
    "all biases, one shared": (masked, ["query"], {"bias": "all"}),
    "biases beside a head": (classifier, ["query"], {"bias": "all", "task_type": "SEQ_CLS"}),
    "biases stored transposed": (gpt2, ["c_attn"], {"bias": "all"}),
    "biases of convolutions": (vit, ["projection", "q_proj"], {"bias": "all"}),
    "biases of channels": (wav2vec2, ["q_proj"], {"bias": "all"}),
    "biases of two towers": (bart, ["q_proj"], {"bias": "all"}),
    "no biases to train": (llama, ["q_proj"], {"bias": "all"}),
    "dora's biases": (bert, ["query", "dense"], {"bias": "lora_only", "use_dora": True}),
    "lora_bias": (bert, ["query"], {"lora_bias": True}),
    "lora_bias without a bias": (llama, ["q_proj", "down_proj"], {"lora_bias": True}),
    "lora_bias and biases": (gpt2, ["c_attn"], {"lora_bias": True, "bias": "all"}),
    "lora_bias of a convolution": (vit, ["projection"], {"lora_bias": True}),
    "tokens": (llama, ["q_proj"], {"trainable_token_indices": TOKENS}),
    "tokens beside a head's factors": (
        llama,
        ["q_proj", "lm_head"],
        {"trainable_token_indices": TOKENS},
    ),
    "tied tokens": (tied_llama, ["q_proj"], {"trainable_token_indices": TOKENS}),
    "tied tokens by name": (
        tied_llama,
        ["q_proj"],
        {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": TOKENS}},
    ),
    "tied tokens that differ": (
        tied_llama,
        ["q_proj"],
        {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": [7, 8]}},
    ),
    "a head's tokens": (llama, ["q_proj"], {"trainable_token_indices": {"lm_head": TOKENS}}),
    "scaled tokens": (gemma, ["q_proj"], {"trainable_token_indices": TOKENS}),
    "tokens of towers": (t5, ["q"], {"trainable_token_indices": TOKENS}),
    "tokens and biases": (bert, ["query"], {"trainable_token_indices": TOKENS, "bias": "all"}),
}
UNFOLDED = {  # of which merging into the base is refused, and why
    "lora_bias without a bias": "has no bias, into which",
    "tied tokens that differ": "shares its weight with",
}


def seeded(build):
    return kinds.seeded(build).double()


def tuned(case, seed=0):
    """A PEFT model whose factors, biases and tokens do something."""
    build, targets, config = CASES[case]
    settings = LoraConfig(r=2, lora_alpha=6, target_modules=targets, **config)
    model = get_peft_model(seeded(build), settings, autocast_adapter_dtype=False).eval()
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 50)
    for name, parameter in model.named_parameters():
        if "trainable_tokens" in name or (name.endswith(".bias") and parameter.requires_grad):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data + noise * 0.3
        parameter.data = parameter.data.double()
    return model


def inputs(build):
    if build is t5:
        batch = kinds.inputs(bert)
        batch["decoder_input_ids"] = batch["input_ids"].flip(1)[:, :3]
    else:
        batch = kinds.inputs(build)
    for key in ("input_ids", "decoder_input_ids"):
        if key in batch:
            batch[key][:, 0], batch[key][:, -1] = TOKENS
    return {
        key: value.double() if value.is_floating_point() else value for key, value in batch.items()
    }


class Loaded:
    """Two adapters of one kind, on a bank and in PEFT's folders."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.build, _, self.config = CASES[name]
        self.batch, self.alone, self.parameters = inputs(self.build), {}, {}
        self.bank = AdapterBank(seeded(self.build))
        for seed, key in enumerate("ab"):
            model = tuned(name, seed)
            model.save_pretrained(folder / key)
            self.alone[key] = output(model, self.batch)
            self.bank.load(key, folder / key)
            if name not in UNFOLDED:
                self.parameters[key] = model.merge_and_unload().state_dict()
        self.base = output(seeded(self.build), self.batch)

    def under(self, gate):
        with self.bank.use(gate):
            return output(self.bank.model, self.batch)

    def mixed(self, weights):
        """The base with a weighted sum of what the adapters change in its parameters."""
        model = seeded(self.build)
        own = model.state_dict()
        for key, tensor in own.items():
            change = sum(w * (self.parameters[name][key] - tensor) for name, w in weights.items())
            own[key] = tensor + change if tensor.is_floating_point() else tensor
        model.load_state_dict(own)
        return output(model, self.batch)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)
