"""The weights of the paper's released code as a model of this package.

Both official models are read: HELM-D (``token_embed``, ``resblocks``) and HELM-MiCE (``embed``,
``layers``). There a point comes with its time in front, a curvature is stored as ``k = 1/c``, and
HoPE turns neighbouring components; here times have weights of their own and HoPE turns component i
with ``i + d/2``, so rows and columns change places and no number changes.

Source: the code published with "HELM: Hyperbolic Large Language Models via Mixture-of-Curvature
Experts" (2025); what it does otherwise than the paper stands in docs/helm.md.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.errors import InputError
from geodapt.helm.config import HelmConfig
from geodapt.helm.presets import RELEASED, RELEASED_EXPERTS
from geodapt.helm.released_state import ReleasedState
from geodapt.helm.task_models import HelmForCausalLM


def convert_released(state: Mapping[str, Tensor], **changes: Any) -> HelmForCausalLM:
    """The official model whose ``state_dict`` this is, with the same logits, in the weights' type.

    Sizes follow from shapes. ``changes`` are attributes of :class:`HelmConfig` that no weight
    tells: ``rope_parameters`` (theta is 10,000 there), ``scoring_func`` (softmax, unless given),
    ``routed_scaling_factor`` (1), the tokens' numbers. Raises :class:`InputError` for weights that
    are missing, left over, of other shapes, or outside what a HELM here can hold.
    """
    weights = ReleasedState(state)
    convert = _dense if weights.has("token_embed.embedding") else _mixture
    attributes, tensors = convert(weights)
    weights.require_all_read()
    wanted = {"released": True, **attributes}
    if set(changes) & {*RELEASED, *RELEASED_EXPERTS, "residual_scale"}:
        # ``released`` overwrites what has its default's value, so here its attributes come singly.
        wanted = {**_singly(HelmConfig(**wanted)), **attributes}
    config = HelmConfig(**{**wanted, **changes})
    helm = HelmForCausalLM(config)
    nn.Module.to(helm, weights.dtype)
    buffers = {name: b for name, b in helm.state_dict().items() if name.endswith(".load")}
    helm.load_state_dict({**buffers, **tensors})
    return helm.eval()


def _singly(config: HelmConfig) -> dict[str, Any]:
    """What ``released`` set in a configuration."""
    names = (*RELEASED, *RELEASED_EXPERTS, "residual_scale")
    return {name: getattr(config, name) for name in names}


def _dense(weights: ReleasedState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Attributes and tensors of an official HELM-D."""
    c, layers = weights.curvature(""), weights.count("resblocks")
    vocabulary, width = weights.take("token_embed.embedding").shape
    into = weights.take("resblocks.0.attn.final_linear.weight").shape[1]
    space = weights.take("resblocks.0.attn.Wq.weight").shape[0]
    heads = into - space
    rows = _halves(space // heads, heads)
    out = {"model.embed_tokens.weight": weights.points("token_embed.embedding", c)}
    for i in range(layers):
        there, here = f"resblocks.{i}", f"model.layers.{i}"
        for a in ("q", "k", "v"):
            turned = rows if a != "v" else None
            _put(out, f"{here}.self_attn.{a}_proj", weights.linear(f"{there}.attn.W{a}", turned))
        _put(out, f"{here}.self_attn.o_proj", weights.of_heads(f"{there}.attn.final_linear", heads))
        _temperature(out, here, weights, f"{there}.attn", "scale", heads * (into // heads))
        _feed_forward(out, f"{here}.mlp", weights, f"{there}.mlp")
        _around(out, here, weights, there, ("ln_1", "ln_2"), ("res1", "res2"))
    _ends(out, weights, "ln_final", "mapping")
    weights.drop("freqs_complex")
    attributes = _sizes(weights, c, width, vocabulary, layers, heads) | {
        "head_dim": into // heads,
        "intermediate_size": weights.take("resblocks.0.mlp.w1.linear.weight").shape[0],
    }
    return attributes, out


def _mixture(weights: ReleasedState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Attributes and tensors of an official HELM-MiCE."""
    c, layers = weights.curvature("", but="experts."), weights.count("layers")
    if weights.has("embed.weight"):
        embedding = weights.take("embed.weight")
    else:
        embedding = weights.points("embed.embedding", c)
    vocabulary, width = embedding.shape[0], embedding.shape[1] + 1
    attention = "layers.0.attn"
    latent = weights.take(f"{attention}.kv_norm.weight").shape[0]
    sizes = {n: weights.take(f"{attention}.{n}.linear.weight").shape for n in _PROJECTIONS}
    rope = sizes["wkv_a"][0] - latent
    values = sizes["wo"][1]
    heads = (sizes["wq"][0] - sizes["wkv_b"][0] + values) // rope
    value, nope = values // heads, sizes["wq"][0] // heads - rope
    dense = next((i for i in range(layers) if weights.has(f"layers.{i}.ffn.gate.weight")), layers)
    out = {"model.embed_tokens.weight": embedding}
    for i in range(layers):
        there, here = f"layers.{i}", f"model.layers.{i}"
        _latent_attention(out, f"{here}.self_attn", weights, f"{there}.attn", heads, nope, rope)
        _temperature(
            out, here, weights, f"{there}.attn", "softmax_scale", heads * (nope + rope + 1)
        )
        if i < dense:
            _feed_forward(out, f"{here}.mlp", weights, f"{there}.ffn")
        else:
            _experts(out, f"{here}.mlp", weights, f"{there}.ffn")
        _around(out, here, weights, there, ("attn_norm", "ffn_norm"), ("attn_res", "ffn_res"))
    if dense == layers:
        raise InputError("no layer has experts: the weights are none of the official HELM-MiCE")
    _ends(out, weights, "norm", "head")
    first = weights.take(f"layers.{dense}.ffn.experts.0.w1.linear.weight")
    attributes = _sizes(weights, c, width, vocabulary, layers, heads) | {
        "attention": "mla",
        "kv_lora_rank": latent + 1,
        "qk_nope_head_dim": nope + 1,
        "qk_rope_head_dim": rope,
        "v_head_dim": value,
        "first_k_dense_replace": dense,
        "n_routed_experts": weights.count(f"layers.{dense}.ffn.experts"),
        "moe_intermediate_size": first.shape[0],
    }
    if dense:
        attributes["intermediate_size"] = weights.take("layers.0.ffn.w1.linear.weight").shape[0]
    return attributes, out


_PROJECTIONS = ("wq", "wkv_a", "wkv_b", "wo")


def _sizes(
    weights: ReleasedState, c: float, width: int, vocabulary: int, layers: int, heads: int
) -> dict[str, Any]:
    weights.drop("attn_mask")
    mask = weights.state.get("attn_mask")  # as long as the longest row
    return {
        "vocab_size": vocabulary,
        "hidden_size": width - 1,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 2048 if mask is None else len(mask),
        "curvature": c,
    }


def _latent_attention(
    out: dict[str, Tensor],
    here: str,
    weights: ReleasedState,
    there: str,
    heads: int,
    nope: int,
    rope: int,
) -> None:
    if weights.has(f"{there}.wq_a.linear.weight"):
        raise InputError(f"'{there}.wq_a' holds latent queries, which the released code cannot run")
    a_head = torch.cat([nope + _halves(rope, 1), torch.arange(nope)])  # rope first here
    rows = (torch.arange(heads).unsqueeze(1) * (nope + rope) + a_head).flatten()
    _put(out, f"{here}.q_proj", weights.linear(f"{there}.wq.linear", rows))
    latent = weights.take(f"{there}.kv_norm.weight")
    rows = torch.cat([torch.arange(len(latent)), len(latent) + _halves(rope, 1)])
    _put(out, f"{here}.kv_a_proj_with_mqa", weights.linear(f"{there}.wkv_a.linear", rows))
    out[f"{here}.kv_a_layernorm.weight"] = latent
    whole = weights.take(f"{there}.wkv_b.linear.weight").roll(-1, dims=1)  # the time last
    _put(
        out,
        f"{here}.kv_b_proj",
        {"weight": whole, "bias": weights.take(f"{there}.wkv_b.linear.bias")},
    )
    _put(out, f"{here}.o_proj", weights.of_heads(f"{there}.wo.linear", heads))


def _experts(out: dict[str, Tensor], here: str, weights: ReleasedState, there: str) -> None:
    count = weights.count(f"{there}.experts")
    each = [
        [weights.linear(f"{there}.experts.{e}.{w}.linear") for w in ("w1", "w3", "w2")]
        for e in range(count)
    ]
    for part, suffix in (("weight", "proj"), ("time_weight", "time"), ("bias", "bias")):
        out[f"{here}.experts.gate_up_{suffix}"] = torch.stack(
            [torch.cat([gate[part], up[part]]) for gate, up, _ in each]
        )
        out[f"{here}.experts.down_{suffix}"] = torch.stack([down[part] for _, _, down in each])
    _feed_forward(out, f"{here}.shared_experts.0", weights, f"{there}.shared_experts")
    out[f"{here}.gate.weight"] = weights.take(f"{there}.gate.weight")
    out[f"{here}.gate.e_score_correction_bias"] = weights.take(f"{there}.gate.bias").float()
    c_i = [weights.curvature(f"{there}.experts.{e}.expert_manifold.") for e in range(count)]
    out[f"{here}.curvature_offset"] = torch.tensor(c_i, dtype=torch.float64).log().to(weights.dtype)
    out[f"{here}.join.weight.offset"] = weights.log(f"{there}.add_experts.w_y", 1.0)
    scale = weights.take(f"{there}.add_experts.scale").double().reshape(1)
    out[f"{here}.join.scale.offset"] = (scale - math.log(2)).to(weights.dtype)


def _feed_forward(out: dict[str, Tensor], here: str, weights: ReleasedState, there: str) -> None:
    for name, official in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        _put(out, f"{here}.{name}_proj", weights.linear(f"{there}.{official}.linear"))


def _around(
    out: dict[str, Tensor],
    here: str,
    weights: ReleasedState,
    there: str,
    norms: tuple[str, str],
    residuals: tuple[str, str],
) -> None:
    """A block's norms and residuals, whose scale is a constant there."""
    for name, official in zip(("input", "post_attention"), norms, strict=True):
        out[f"{here}.{name}_layernorm.weight"] = weights.take(f"{there}.{official}.weight")
    for name, official in zip(("attention", "mlp"), residuals, strict=True):
        out[f"{here}.{name}_residual.weight.offset"] = weights.log(f"{there}.{official}.w_y", 1.0)
        out[f"{here}.{name}_residual.scale.offset"] = torch.zeros(1, dtype=weights.dtype)


def _temperature(
    out: dict[str, Tensor], here: str, weights: ReleasedState, there: str, name: str, product: int
) -> None:
    start = math.sqrt(product)
    out[f"{here}.self_attn.temperature.offset"] = weights.log(f"{there}.{name}", start)
    weights.drop(f"{there}.bias")  # equal for all keys: it leaves the softmax


def _ends(out: dict[str, Tensor], weights: ReleasedState, norm: str, head: str) -> None:
    _put(out, "model.final_proj", weights.linear("final_proj.linear"))
    out["model.norm.weight"] = weights.take(f"{norm}.weight")
    out["lm_head.weight"] = weights.take(f"{head}.weight").roll(-1, dims=1)


def _put(out: dict[str, Tensor], name: str, parts: dict[str, Tensor]) -> None:
    out.update({f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items()})


def _halves(size: int, heads: int) -> Tensor:
    """Rows of each head whose neighbours form pairs, so that pairs lie half a head apart."""
    pairs = torch.arange(size).view(-1, 2).T.flatten()
    return (torch.arange(heads).unsqueeze(1) * size + pairs).flatten()
