"""Tiny models and adapters on them of every kind that PEFT makes."""

import peft
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from tests.adapters.families import randomise

WIDTHS = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def llama():
    return LlamaForCausalLM(LlamaConfig(**WIDTHS))


def tied_llama():
    return LlamaForCausalLM(LlamaConfig(**WIDTHS, tie_word_embeddings=True))


def gemma():
    """Its embedding multiplies what it looks up."""
    return Gemma3ForCausalLM(Gemma3TextConfig(**WIDTHS, num_key_value_heads=2, head_dim=8))


def mixtral():
    return MixtralForCausalLM(
        MixtralConfig(**WIDTHS, num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2)
    )


def qwen():
    config = Qwen3MoeConfig(
        **WIDTHS,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        head_dim=8,
    )
    return Qwen3MoeForCausalLM(config)


def deepseek():
    """One block with a plain MLP, one with experts, of which one is shared."""
    config = DeepseekV3Config(
        **WIDTHS | {"num_hidden_layers": 2},
        moe_intermediate_size=24,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        num_key_value_heads=2,
    )
    return DeepseekV3ForCausalLM(config)


def gpt_oss():
    """Its experts are stored (in, out)."""
    return GptOssForCausalLM(
        GptOssConfig(
            **WIDTHS,
            num_key_value_heads=2,
            num_local_experts=3,
            num_experts_per_tok=2,
            head_dim=8,
        )
    )


def gpt2():
    """Its linear layers are stored (in, out)."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2))


def bert():
    return BertModel(BertConfig(**WIDTHS))


def bart():
    """Its embeddings may multiply what they look up."""
    return BartModel(
        BartConfig(
            vocab_size=60,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            scale_embedding=True,
        )
    )


def vit():
    widths = {key: value for key, value in WIDTHS.items() if key != "vocab_size"}
    return ViTModel(ViTConfig(**widths, image_size=16, patch_size=8))


def wav2vec2():
    return Wav2Vec2Model(
        Wav2Vec2Config(
            **WIDTHS,
            conv_dim=(8, 8),
            conv_stride=(3, 2),
            conv_kernel=(5, 3),
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    )


EMBED = {"target_modules": ["embed_tokens", "q_proj"]}
KINDS = {
    "lm_head": (llama, {"target_modules": ["q_proj", "lm_head"]}),
    "tied lm_head": (tied_llama, {"target_modules": ["lm_head"]}),
    "tied embeddings": (tied_llama, {"target_modules": ["embed_tokens", "lm_head"]}),
    "tied by PEFT": (tied_llama, {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
    "embeddings": (llama, {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True}),
    "scaled embeddings": (gemma, EMBED),
    "word_embeddings": (bert, {"target_modules": ["word_embeddings", "query"]}),
    "dora": (llama, {"target_modules": "all-linear", "use_dora": True}),
    "dora with biases": (bert, {"target_modules": ["query", "dense"], "use_dora": True}),
    "dora stored transposed": (gpt2, {"target_modules": ["c_attn", "c_fc"], "use_dora": True}),
    "dora embeddings": (llama, {**EMBED, "use_dora": True}),
    "dora scaled embeddings": (gemma, {**EMBED, "use_dora": True}),
    "dora convolution": (vit, {"target_modules": ["projection", "q_proj"], "use_dora": True}),
    "convolution": (vit, {"target_modules": ["projection", "q_proj"]}),
    "convolutions of sound": (wav2vec2, {"target_modules": r".*conv_layers.*conv|.*q_proj"}),
    "experts of Mixtral": (mixtral, {"target_modules": [], "target_parameters": EXPERTS}),
    "all of Mixtral": (mixtral, {"target_modules": "all-linear"}),
    "experts of Qwen": (qwen, {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),
    "one of Qwen": (qwen, {"target_modules": [], "target_parameters": EXPERTS[1:]}),
    "experts of DeepSeek": (deepseek, {"target_modules": [], "target_parameters": EXPERTS}),
    "experts of gpt-oss": (gpt_oss, {"target_modules": [], "target_parameters": EXPERTS}),
    "a layer's weight": (llama, {"target_modules": [], "target_parameters": ["q_proj.weight"]}),
}

if hasattr(peft, "VeloraConfig"):  # a newer PEFT
    KINDS |= {
        "mica": (bert, {"target_modules": ["query", "dense"], "init_lora_weights": "mica"}),
        "velora": (llama, {"target_modules": ["q_proj"], "velora_config": peft.VeloraConfig()}),
    }


def seeded(build):
    torch.manual_seed(3)
    return build().eval()


def tuned(build, seed=0, **config):
    """A PEFT model whose adapter does something, its magnitudes among that."""
    model = get_peft_model(seeded(build), LoraConfig(r=2, lora_alpha=6, **config)).eval()
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            noise = torch.rand(parameter.shape, generator=generator)
            parameter.data = parameter.data.abs() * (0.5 + noise)
    if config.get("ensure_weight_tying"):
        embedding, head = (
            model.get_submodule(f"base_model.model.{path}")
            for path in ("model.embed_tokens", "lm_head")
        )
        head.lora_A["default"].weight.data = embedding.lora_embedding_B["default"].data.T
        head.lora_B["default"].weight.data = embedding.lora_embedding_A["default"].data.T
    return model


def saved(folder, build, seed=0, **config):
    tuned(build, seed, **config).save_pretrained(folder)
    return folder


def inputs(build, rows=3):
    generator = torch.Generator().manual_seed(1)
    if build is vit:
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    if build is wav2vec2:
        return {"input_values": torch.randn(rows, 60, generator=generator)}
    return {"input_ids": torch.randint(5, 60, (rows, 4), generator=generator)}
