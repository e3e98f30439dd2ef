"""Tiny models whose layers hold the rows of the batch in unlike ways, each with a batch of two."""

import torch
import transformers as T
from torch import nn

TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
SEQ2SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
SPEECH = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "conv_dim": (32, 32),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
PICTURE = 99
"""The id whose places pictures take."""


def ids(tokens: int = 8) -> torch.Tensor:
    return torch.arange(5, 5 + tokens) + torch.tensor([[0], [20]])


def text(model, **more):
    return model, {"input_ids": ids()} | more


def pair(model):
    return model, {"input_ids": ids(), "decoder_input_ids": ids(4)}


def pictures(model, side: int = 16):
    return model, {"pixel_values": torch.randn(2, 3, side, side)}


def fsmt(kind=T.FSMTModel):
    sizes = {"src_vocab_size": 100, "tgt_vocab_size": 100, "max_position_embeddings": 64}
    return pair(kind(T.FSMTConfig(langs=["en", "de"], init_std=0.3, **sizes, **SEQ2SEQ)))


def led():
    sizes = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}
    return pair(T.LEDModel(T.LEDConfig(vocab_size=100, attention_window=4, **sizes, **SEQ2SEQ)))


def longformer():
    config = T.LongformerConfig(**TEXT, attention_window=4)
    model = T.LongformerModel(config, add_pooling_layer=False)
    return text(model, global_attention_mask=torch.tensor([[1] + [0] * 7] * 2))


def switch():
    config = T.SwitchTransformersConfig(
        vocab_size=100,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
    )
    return pair(T.SwitchTransformersModel(config))


def swinv2():
    config = T.Swinv2Config(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    return pictures(T.Swinv2Model(config), 32)


def conformer():
    config = T.Wav2Vec2ConformerConfig(**SPEECH, position_embeddings_type="relative")
    return T.Wav2Vec2ConformerModel(config), {"input_values": torch.randn(2, 800)}


def wavlm():
    return T.WavLMModel(T.WavLMConfig(**SPEECH)), {"input_values": torch.randn(2, 800)}


def clip():
    config = T.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    model, batch = text(T.CLIPModel(config))
    return model, batch | pictures(model)[1]


def llava(counts=(1, 1)):
    """A LLaVA, and a batch with so many pictures in each row."""
    model = T.LlavaForConditionalGeneration(
        T.LlavaConfig(
            text_config=T.LlamaConfig(**TEXT),
            vision_config=T.CLIPVisionConfig(**VISION),
            image_token_id=PICTURE,
            vision_feature_layer=-1,
        )
    )
    rows = torch.tensor([[PICTURE] * 4 * n + list(range(5, 17 - 4 * n)) for n in counts])
    return model, {"input_ids": rows, "pixel_values": torch.randn(sum(counts), 3, 16, 16)}


def deepseek():
    config = T.DeepseekV3Config(
        **TEXT,
        num_key_value_heads=4,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    )
    return text(T.DeepseekV3Model(config))


def jamba():
    config = T.JambaConfig(
        **TEXT,
        num_key_value_heads=2,
        num_experts=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    )
    return text(T.JambaModel(config))


def encoder(batch_first: bool = True):
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2), {"src": torch.randn(2, 6, 32)}
