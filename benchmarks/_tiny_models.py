"""A tiny random model of any transformers family, and inputs for it, from its configuration."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ROWS, TOKENS, VOCABULARY, SIDE = 2, 6, 99, 32
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "hidden_dim"), 32),
    **dict.fromkeys(("emb_dim", "text_embed_dim", "projection_dim", "proj_dim", "word_dim"), 32),
    **dict.fromkeys(("vision_embed_dim", "encoder_hidden_size", "decoder_hidden_size"), 32),
    **dict.fromkeys(("cross_attention_hidden_size", "n_inner", "ffn_dim", "d_ff", "d_inner"), 48),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden"), 48),
    **dict.fromkeys(("mlp_dim", "feed_forward_hidden_size", "dense_ffn_hidden_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "intermediate_size_mlp"), 24),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "e_layers", "d_layers", "encoder_num_hidden_layers"), 2),
    **dict.fromkeys(("decoder_num_hidden_layers", "attention_layers", "num_blocks"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_num_attention_heads", "decoder_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "kv_channels", "attention_head_size", "d_head"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "qk_head_dim"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "experts_per_token", "moe_topk", "top_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("max_source_positions", "max_target_positions", "seq_length"), 64),
    **dict.fromkeys(("max_sequence_length", "context_length", "max_seq_length"), 64),
    **dict.fromkeys(("vocab_size", "n_vocab", "entity_vocab_size", "vocab_size_per_layer"), 99),
    **dict.fromkeys(("image_size", "img_size", "input_size"), SIDE),
    **dict.fromkeys(("patch_size", "patch_stride"), 8),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 8),
    **dict.fromkeys(("num_mel_bins", "feature_size", "num_mel_bins"), 16),
    **dict.fromkeys(("num_channels", "in_channels", "in_chans"), 3),
    "type_vocab_size": 2,
    "num_queries": 5,
    "num_latents": 6,
    "d_latents": 32,
    "attention_window": 4,
    "embedding_size": 32,
    "relative_attention_num_buckets": 8,
    "word_embed_proj_dim": 32,
    "num_codebooks": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
FAMILIES = sorted(CONFIG_MAPPING)


class NotBuilt(Exception):
    """A family without a tiny model here."""


def build(family: str) -> PreTrainedModel:
    """A tiny random model; raises :class:`NotBuilt` when it cannot be made from small sizes."""
    torch.manual_seed(0)
    names = modeling_auto.MODEL_MAPPING_NAMES.get(family)
    if names is None:
        raise NotBuilt("no bare model")
    import transformers

    name = names if isinstance(names, str) else names[0]
    try:
        config = shrink(CONFIG_MAPPING[family])
        model = getattr(transformers, name)(config)
    except Exception as error:  # sizes that do not go together, packages that are not here
        raise NotBuilt(f"{type(error).__name__}: {str(error).splitlines()[0][:120]}") from error
    if sum(parameter.numel() for parameter in model.parameters()) > 20_000_000:
        raise NotBuilt("it stays large")
    return model.eval()


def shrink(kind: type[PreTrainedConfig], **more: Any) -> PreTrainedConfig:
    """A small configuration: known sizes become small, in nested configurations too."""
    start = kind().to_dict()
    return kind(**{**_small(start), **more})


def _small(values: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result[key] = _small(value)
        elif key in TOKEN_IDS and isinstance(value, int):
            result[key] = TOKEN_IDS[key]
        elif key in SIZES and isinstance(value, int) and not isinstance(value, bool):
            result[key] = min(SIZES[key], value) if value > 0 else value
        elif key in SIZES and isinstance(value, list | tuple) and value:
            result[key] = [min(SIZES[key], v) if isinstance(v, int) else v for v in value]
        elif key in ("layer_types", "mlp_layer_types", "layers_block_type") and value:
            result[key] = value[:2]
        elif key in ("transformers_version", "torch_dtype", "dtype", "architectures"):
            continue
        else:
            result[key] = value
    return result


def inputs(model: nn.Module, rows: int = ROWS) -> dict[str, Tensor]:
    """A batch that the model takes; raises :class:`NotBuilt` when none of a few sorts is one."""
    for batch in _candidates(model, rows):
        try:
            with torch.no_grad():
                found = outputs(model, batch)
        except Exception:  # of another sort
            continue
        if found and all(torch.isfinite(tensor).all() for tensor in found):
            return batch
    raise NotBuilt("no inputs found")


def outputs(model: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    """The float tensors of a model's output that have a row for every row of the batch."""
    torch.manual_seed(0)
    rows = next(iter(batch.values())).shape[0]
    with torch.no_grad():
        result = model(**batch)
    found: list[Tensor] = []
    _collect(result.to_tuple() if hasattr(result, "to_tuple") else result, rows, found)
    return found


def _collect(value: Any, rows: int, found: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.ndim > 1 and value.shape[0] == rows:
            found.append(value.detach().clone())
    elif isinstance(value, list | tuple):
        for part in value:
            _collect(part, rows, found)


def _candidates(model: nn.Module, rows: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    config: Any = model.config
    takes = inspect.signature(model.forward).parameters

    def ids(tokens: int = TOKENS) -> Tensor:
        return torch.randint(5, 90, (rows, tokens), generator=generator)

    def noise(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator)

    pictures = [noise(3, side, side) for side in (SIDE, 64, 224)]
    sound = [noise(400), noise(4000)]
    spectra = [noise(16, 128), noise(128, 16), noise(16, 64), noise(80, 100), noise(100, 80)]
    found: list[dict[str, Tensor]] = []
    text: dict[str, Tensor] = {"input_ids": ids()}
    if "decoder_input_ids" in takes:
        found.append({**text, "decoder_input_ids": ids(4)})
    if "pixel_values" in takes and "input_ids" in takes:
        found += [{**text, "pixel_values": picture} for picture in pictures]
    if "input_ids" in takes:
        found.append(text)
        if "bbox" in takes:
            found.insert(0, {**text, "bbox": torch.zeros(rows, TOKENS, 4, dtype=torch.long)})
    if "pixel_values" in takes:
        found += [{"pixel_values": picture} for picture in pictures]
    for name, values in (("input_values", sound + spectra), ("input_features", spectra)):
        if name in takes:
            if "decoder_input_ids" in takes:
                found += [{name: value, "decoder_input_ids": ids(4)} for value in values]
            found += [{name: value} for value in values]
    if "past_values" in takes:
        length = getattr(config, "context_length", 32)
        channels = getattr(config, "num_input_channels", 1)
        found.append({"past_values": noise(length, channels)})
        found.append({"past_values": noise(length)})
    if "inputs" in takes:
        found.append({"inputs": noise(8, getattr(config, "d_model", 32))})
    return found
