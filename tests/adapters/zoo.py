"""Tiny models whose layers hold the rows of the batch in unlike ways, each with a batch of two."""

import torch
import transformers as T
from torch import nn

from tests.tiny_models import SEQ2SEQ, SPEECH, T5, TEXT, VISION, tiny

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


def fsmt(kind="FSMTModel"):
    sizes = {"src_vocab_size": 100, "tgt_vocab_size": 100, "max_position_embeddings": 64}
    return pair(tiny(kind, SEQ2SEQ, sizes, langs=["en", "de"], init_std=0.3))


def led():
    return pair(tiny("LEDModel", SEQ2SEQ, vocab_size=100))


def longformer():
    model = tiny("LongformerModel", TEXT, options={"add_pooling_layer": False})
    return text(model, global_attention_mask=torch.tensor([[1] + [0] * 7] * 2))


def switch():
    return pair(tiny("SwitchTransformersModel", T5, vocab_size=100))


def swinv2():
    return pictures(tiny("Swinv2Model"), 32)


def conformer():
    model = tiny("Wav2Vec2ConformerModel", SPEECH, position_embeddings_type="relative")
    return model, {"input_values": torch.randn(2, 800)}


def wavlm():
    return tiny("WavLMModel", SPEECH), {"input_values": torch.randn(2, 800)}


def clip():
    model, batch = text(
        tiny("CLIPModel", text_config=TEXT, vision_config=VISION, projection_dim=16)
    )
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


def perceiver():
    sizes = {"d_model": 32, "d_latents": 32, "num_latents": 6, "num_self_attends_per_block": 1}
    heads = {"num_self_attention_heads": 4, "num_cross_attention_heads": 4}
    return tiny("PerceiverModel", sizes, heads), {"inputs": torch.randn(2, 7, 32)}


def blip2():
    texts = {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32, **TEXT}
    queries = {"encoder_hidden_size": 32, "cross_attention_frequency": 1, **TEXT}
    model = tiny(
        "Blip2ForConditionalGeneration",
        {"text_config": texts, "qformer_config": queries, "vision_config": VISION},
        {"num_query_tokens": 3, "image_token_index": PICTURE},
    )
    torch.nn.init.normal_(model.query_tokens)
    rows = torch.cat([torch.full((2, 3), PICTURE), ids(4)], 1)
    return model, pictures(model)[1] | {"input_ids": rows}


def kosmos2():
    texts = {"vocab_size": 100, "embed_dim": 32, "layers": 2, "ffn_dim": 48, "attention_heads": 4}
    model = tiny("Kosmos2Model", text_config=texts, vision_config=VISION, latent_query_num=3)
    places = torch.tensor([[0, 1, 1, 1, 0, 0, 0, 0]] * 2)
    return text(model, image_embeds_position_mask=places, **pictures(model)[1])


def deepseek():
    sizes = {"num_key_value_heads": 4, "n_group": 2, "topk_group": 1, "q_lora_rank": 8}
    heads = {"kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    return text(tiny("DeepseekV3Model", TEXT, sizes, heads))


def jamba():
    sizes = {"num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4}
    return text(tiny("JambaModel", TEXT, sizes))


def encoder(batch_first: bool = True):
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2), {"src": torch.randn(2, 6, 32)}
