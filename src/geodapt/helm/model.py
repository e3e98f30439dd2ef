"""The model: blocks of hyperbolic attention and feed-forward, with transformers' interface."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import MoeModelOutputWithPast
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from geodapt.errors import InputError
from geodapt.helm import arguments
from geodapt.helm.arguments import CACHE
from geodapt.helm.attention import HelmAttention
from geodapt.helm.config import HelmConfig
from geodapt.helm.experts import HelmExperts, HelmMoE
from geodapt.helm.latent_attention import HelmLatentAttention
from geodapt.helm.lorentz_layers import (
    Curvature,
    HelmMLP,
    HelmRMSNorm,
    LearnedScalar,
    LorentzLinear,
    LorentzResidual,
    PointLinear,
    time_component,
    wide,
)
from geodapt.helm.positions import HelmRotaryEmbedding, RelativeBias
from geodapt.helm.router import HelmRouter

ZERO = {"time_weight", "gate_up_time", "down_time", "offset", "curvature_offset"}
ZERO |= {"gate_up_bias", "down_bias"}
ZERO |= {"e_score_correction_bias", "load"}


class HelmDecoderLayer(GradientCheckpointingLayer):
    """``x (+) attention(norm(x))``, then ``x (+) feed-forward(norm(x))``."""

    def __init__(self, config: HelmConfig, layer_idx: int) -> None:
        super().__init__()
        attention = HelmLatentAttention if config.attention == "mla" else HelmAttention
        self.self_attn = attention(config, layer_idx)
        routed = config.n_routed_experts and layer_idx >= config.first_k_dense_replace
        self.mlp = HelmMoE(config) if routed else HelmMLP(config, config.intermediate_size)
        self.input_layernorm = HelmRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = HelmRMSNorm(config.hidden_size, config.rms_norm_eps)
        scale = (float(config.residual_scale), config.learn_residual_scale)
        self.attention_residual = LorentzResidual(*scale)
        self.mlp_residual = LorentzResidual(*scale)

    def forward(
        self,
        hidden_states: Float[Tensor, "rows n d"],
        curvature: Tensor,
        counted: Bool[Tensor, "rows n"] | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "rows n d"], Float[Tensor, "tokens e"] | None]:
        """The block's points, and its gate's logits if it has experts.

        ``counted`` selects the tokens that count in the experts' balance: all but padding.
        """
        # Here, since checkpointed arguments must be tensors. A checkpoint runs first without
        # gradients, and must find the same then.
        c = Curvature.of(curvature, smooth=self.training or torch.is_grad_enabled())
        h, time = self.input_layernorm(hidden_states, c)
        attended, _ = self.self_attn(h, time, c, **kwargs)
        hidden_states = self.attention_residual(hidden_states, attended, c)
        h, time = self.post_attention_layernorm(hidden_states, c)
        if isinstance(self.mlp, HelmMoE):
            h, router_logits = self.mlp(h, time, c, counted)
        else:
            h, router_logits = self.mlp(h, time, c), None
        return self.mlp_residual(hidden_states, h, c), router_logits


class HelmPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of a HELM."""

    config: HelmConfig
    config_class = HelmConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HelmDecoderLayer"]
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": HelmDecoderLayer,
        "attentions": [HelmAttention, HelmLatentAttention],
    }
    _keep_in_fp32_modules_strict = ["e_score_correction_bias"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Matrices start normally distributed, norms at 1, and all else at 0, the time's weights
        included."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, HelmRouter):
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, HelmExperts):
            init.normal_(module.gate_up_proj, mean=0.0, std=std)
            init.normal_(module.down_proj, mean=0.0, std=std)
        elif isinstance(module, RelativeBias):
            init.zeros_(module.weight)
        elif isinstance(module, PointLinear) and not getattr(
            module.weight, "_is_hf_initialized", False
        ):  # a column, unlike a weight, does not know whether it was loaded
            module.weight[:, -1].zero_()
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ):
            if name in ZERO:
                init.zeros_(tensor)


class HelmModel(HelmPreTrainedModel):
    """A HELM without a head. Token embeddings are the space components of points."""

    def __init__(self, config: HelmConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(
            HelmDecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.final_proj = None
        if config.final_projection:
            self.final_proj = LorentzLinear(config.hidden_size, config.hidden_size, bias=True)
        self.norm = HelmRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.curvature = LearnedScalar(config.curvature) if config.learn_curvature else None
        self.rotary_emb = self.relative_bias = None
        if config.position == "hope":
            assert config.head_dim is not None
            mla = config.attention == "mla"
            rotated = config.qk_rope_head_dim if mla else (config.head_dim - 1) // 2 * 2
            self.rotary_emb = HelmRotaryEmbedding(config, rotated)
        elif config.position == "relative":
            self.relative_bias = RelativeBias(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Int[Tensor, "rows n"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "rows n"] | None = None,
        cache: Cache | None = None,
        inputs_embeds: Float[Tensor, "rows n d"] | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """As LlamaModel's; ``past_key_values`` is the cache's older name.

        Raises :class:`InputError` for tokens that the vocabulary lacks, for more positions than
        ``max_position_embeddings`` and for a cache under gradient checkpointing, and TypeError
        for an unknown keyword.
        """
        cache = arguments.one_cache(cache, past_key_values)
        arguments.require_known(
            self, kwargs, arguments.RECORDED | arguments.PACKING | {"num_items_in_batch"}
        )
        implementation = self.config._attn_implementation
        arguments.require_positions(kwargs, position_ids, implementation)
        arguments.require_scores(self.config)
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            arguments.require_vocabulary(input_ids, self.config.vocab_size)
            inputs_embeds = self.embed_tokens(input_ids)
        past = cache.get_seq_length() if cache is not None else 0
        n = inputs_embeds.shape[1]
        arguments.require_length(past, n, self.config.max_position_embeddings)
        whole = attention_mask is None and position_ids is None and cache is None
        if position_ids is None:
            position_ids = (torch.arange(n, device=inputs_embeds.device) + past).unsqueeze(0)
        mask = None
        if not (implementation == "sdpa" and whole):  # transformers builds one when it is compiled
            # Without the cache that is made below: packed rows are found only where there is none.
            mask = create_causal_mask(
                self.config, inputs_embeds, attention_mask, cache, position_ids
            )
        cache = self._cache(cache, use_cache)
        if self.relative_bias is not None:
            keys = n if cache is None else cache.get_mask_sizes(n, 0)[0]
            kwargs["position_bias"] = self.relative_bias(past, n, keys).to(inputs_embeds.dtype)
        if self.rotary_emb is not None:
            kwargs["rotation"] = self.rotary_emb(inputs_embeds, position_ids)
        counted = None
        if self.training:
            if torch.is_grad_enabled():
                self._balance_experts()
            if attention_mask is not None and attention_mask.dim() == 2:
                counted = attention_mask[:, -n:].bool()

        c = self.curvature_for(inputs_embeds)
        hidden_states, router_logits = inputs_embeds, []
        for layer in self.layers:
            hidden_states, logits = layer(
                hidden_states,
                c,
                counted,
                attention_mask=mask,
                position_ids=position_ids,
                cache=cache,
                **kwargs,
            )
            if logits is not None:
                router_logits.append(logits)
        space = Curvature.of(c)
        if self.final_proj is not None:
            hidden_states = self.final_proj(hidden_states, time_component(hidden_states, space))
        hidden_states, _ = self.norm(hidden_states, space)
        return MoeModelOutputWithPast(
            last_hidden_state=hidden_states,
            router_logits=tuple(router_logits) or None,
            **{CACHE: cache},  # type: ignore[arg-type]  # the name is one of two
        )

    def curvature_for(self, x: Tensor) -> Tensor:
        """``c``, in the type that scalars of ``x`` are computed in."""
        if self.curvature is not None:
            return self.curvature()
        like = wide(x)
        return torch.full((), self.config.curvature, dtype=like.dtype, device=like.device)

    def curvatures(self) -> dict[str, float]:
        """The curvature of the model and of every layer's experts, for logs; ``c``, not ``-c``."""
        c = self.config.curvature if self.curvature is None else self.curvature().item()
        found = {"curvature": float(c)}
        for index, layer in enumerate(self.layers):
            if isinstance(layer.mlp, HelmMoE):
                for expert, c_i in enumerate(layer.mlp.curvatures().tolist()):
                    found[f"layer_{index}_expert_{expert}_curvature"] = c_i
        return found

    def _cache(self, cache: Cache | None, use_cache: bool | None) -> Cache | None:
        """The given cache, or a new one if requested. None under gradient checkpointing, which runs
        each layer twice and would write into it twice."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            if cache is not None:
                raise InputError(
                    "a cache cannot be used in training with gradient checkpointing, which runs "
                    "every layer twice; call the model without it, or in eval mode"
                )
            return None
        return DynamicCache(config=self.config) if use_cache and cache is None else cache

    def _balance_experts(self) -> None:
        """Runs at the start of a step and not in the gates: under gradient checkpointing a gate
        runs twice and must choose the same experts both times."""
        if self.config.bias_update_speed:
            for layer in self.layers:
                if isinstance(layer.mlp, HelmMoE):
                    layer.mlp.gate.balance()
