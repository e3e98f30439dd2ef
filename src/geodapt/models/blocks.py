"""The structure of a model: its transformer blocks, and which tokens see which."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from geodapt.errors import InputError


def input_embeddings(model: nn.Module) -> nn.Module | None:
    """The module that embeds the model's input: a table of tokens, or patches.

    None where there is none. transformers shows that by one of several errors, and so do other
    modules.
    """
    try:
        return model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError):
        return None


def transformer_blocks(model: nn.Module) -> nn.ModuleList:
    """The model's transformer blocks, in order; of an encoder-decoder, the encoder's.

    They are the outermost list of as many modules as the configuration counts layers.
    Raises :class:`InputError` when there is none (a convolutional or recurrent model).
    """
    config = getattr(model, "config", None)
    layers = getattr(config and config.get_text_config(), "num_hidden_layers", None)
    lists = [
        (name.count("."), module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == layers
        and any(isinstance(part, nn.Linear | Conv1D) for part in module[0].modules())
    ]
    if not lists:
        raise InputError(
            f"base {type(model).__name__} has no list of transformer blocks; "
            "give an encoder or a decoder such as BERT, DeBERTa, ModernBERT, Llama or Qwen"
        )
    return min(lists, key=lambda entry: entry[0])[1]


def is_decoder(model: PreTrainedModel) -> bool:
    """Whether tokens see only what precedes them, so that the last token is the summary.

    Decided by what the model does, since configurations do not state it reliably: the first
    token's state of a causal model has a gradient of exactly zero by every later token.
    An encoder-decoder counts as its encoder.
    """
    if model.config.is_encoder_decoder:
        return False
    embeddings: list[torch.Tensor] = []

    def capture(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        embeddings.append(output.detach().requires_grad_())
        return embeddings[-1]

    embedding = model.get_input_embeddings()
    # Padding is left out: its embedding is zero, where a norm's gradient can overflow.
    words = [token for token in range(5) if token != model.config.get_text_config().pad_token_id]
    tokens = torch.tensor([words[:4]], device=model.device)
    hook = embedding.register_forward_hook(capture)
    try:
        with torch.enable_grad():
            states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]
            # Unequal weights, since a normalised state has a constant sum.
            first = states[0, 0] @ torch.linspace(0, 1, states.shape[-1]).to(states)
            (gradient,) = torch.autograd.grad(first, embeddings[0])
    finally:
        hook.remove()
    return not gradient.reshape(tokens.numel(), -1)[1:].any()
