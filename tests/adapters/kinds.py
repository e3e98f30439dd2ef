"""Tiny models and adapters on them of every kind that PEFT makes."""

import peft
import torch
from peft import LoraConfig, get_peft_model

from tests.adapters.made_by_peft import randomise
from tests.tiny_models import NARROW, PICTURES, encoder_decoder, tiny

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def llama():
    return tiny("LlamaForCausalLM", NARROW)


def tied_llama():
    return tiny("LlamaForCausalLM", NARROW, tie_word_embeddings=True)


def gemma():
    """Its embedding multiplies what it looks up."""
    return tiny("Gemma3ForCausalLM", NARROW, num_key_value_heads=2, head_dim=8)


def mixtral():
    return tiny("MixtralForCausalLM", NARROW, num_local_experts=3)


def qwen():
    return tiny("Qwen3MoeForCausalLM", NARROW)


def deepseek():
    """One block with a plain MLP, one with experts, of which one is shared."""
    sizes = {"num_hidden_layers": 2, "num_key_value_heads": 2, "n_group": 1, "topk_group": 1}
    heads = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
    return tiny("DeepseekV3ForCausalLM", NARROW, sizes, heads)


def gpt_oss():
    """Its experts are stored (in, out)."""
    return tiny("GptOssForCausalLM", NARROW, num_local_experts=3)


def gpt2():
    """Its linear layers are stored (in, out)."""
    return tiny("GPT2LMHeadModel", vocab_size=60, n_embd=16, n_layer=1, n_head=2)


def bert():
    return tiny("BertModel", NARROW)


def bart():
    """Its embeddings may multiply what they look up."""
    return tiny("BartModel", encoder_decoder(16, 24, 1, 2), vocab_size=60, scale_embedding=True)


def vit():
    return tiny("ViTModel", {k: v for k, v in NARROW.items() if k != "vocab_size"}, PICTURES)


def wav2vec2():
    layers = {"conv_dim": (8, 8), "conv_stride": (3, 2), "conv_kernel": (5, 3)}
    places = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return tiny("Wav2Vec2Model", NARROW, layers, places)


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
    told = LoraConfig(**{"r": 2, "lora_alpha": 6, **config})
    model = get_peft_model(seeded(build), told).eval()
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
