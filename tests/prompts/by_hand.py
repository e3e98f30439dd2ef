"""CLIP and SigLIP with learned tokens in float64, written straight from the papers' definitions.

Texts have the model's full length and one class passes at a time; tokens are put into place by
concatenation, layer by layer. Nothing of geodapt's hooks is used.
"""

import copy
import math

import torch
from torch.nn.functional import layer_norm, normalize


def double(clip):
    """The model in float64, a copy."""
    return copy.deepcopy(clip.model).double()


def text(model, tokenizer, row, layers=(), at=None):
    """One class: ``row`` is a list of token ids and of vectors, from the start token to the end.

    ``layers`` are the tokens of the deeper layers, from the second on, at the places after the
    start token, or from the place ``at`` on.
    """
    tower = model.text_model
    siglip = model.config.model_type == "siglip"
    start = at if at is not None else 0 if siglip else 1
    embedding = tower.embeddings.token_embedding.weight
    vectors = [embedding[item] if isinstance(item, int) else item for item in row]
    positions = model.config.text_config.max_position_embeddings
    vectors += [embedding[tokenizer.pad_token_id]] * (positions - len(row))
    states = torch.stack(vectors)[None] + tower.embeddings.position_embedding.weight
    mask = None if siglip else torch.full((positions, positions), -math.inf).triu(1).double()
    for number, layer in enumerate(tower.encoder.layers):
        if 0 < number <= len(layers):
            given = layers[number - 1][None]
            states = torch.cat([states[:, :start], given, states[:, start + given.shape[1] :]], 1)
        states = layer(states, attention_mask=None if mask is None else mask[None, None])
    states = norm(tower.final_layer_norm, states)
    if siglip:
        return tower.head(states[0, -1])
    return model.text_projection(states[0, len(row) - 1])


def image(model, pixels, layers=()):
    """Pictures; ``layers`` are the tokens of all layers that have some, from the first on."""
    tower = model.vision_model
    states = tower.embeddings(pixels)
    patches = states.shape[1]
    for number, layer in enumerate(tower.encoder.layers):
        if number < len(layers):
            given = layers[number].expand(len(pixels), -1, -1)
            states = torch.cat([states[:, :patches], given], dim=1)
        if number == 0 and hasattr(tower, "pre_layrnorm"):
            states = norm(tower.pre_layrnorm, states)
        states = layer(states, attention_mask=None)
    if model.config.model_type == "siglip":
        return tower.head(norm(tower.post_layernorm, states[:, :patches]))
    return model.visual_projection(norm(tower.post_layernorm, states[:, 0]))


def norm(module, states):
    return layer_norm(states, states.shape[-1:], module.weight, module.bias, module.eps)


def logits(model, images, texts):
    return model.logit_scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T


def cross_entropy(found, labels):
    rows = [row - torch.logsumexp(row, 0) for row in found]
    return -sum(row[label] for row, label in zip(rows, labels, strict=True)) / len(rows)


def divergence(target, found):
    """``KL(softmax(target) || softmax(found))`` summed over rows, over rows times classes."""
    total = 0.0
    for one, other in zip(target.log_softmax(-1), found.log_softmax(-1), strict=True):
        total = total + (one.exp() * (one - other)).sum()
    return total / found.numel()
