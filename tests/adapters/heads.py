"""Models and adapters whose heads are trained in full, as PEFT makes them."""

import torch
import transformers as T
from peft import LoraConfig, get_peft_model

from tests.tiny_models import PICTURES, SMALL, T5, build

LABELS = {"num_labels": 3}
GPT2 = T.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, pad_token_id=0, **LABELS)
DISTILBERT = T.DistilBertConfig(vocab_size=99, dim=32, hidden_dim=48, n_layers=2, n_heads=4)
# (class, its configuration, what PEFT is told)
KINDS = {
    "llama classifier": (
        "LlamaForSequenceClassification",
        T.LlamaConfig(**SMALL, pad_token_id=0, **LABELS),
        {"target_modules": ["q_proj"], "task_type": "SEQ_CLS"},
    ),
    "gpt2 classifier": (
        "GPT2ForSequenceClassification",
        GPT2,
        {"target_modules": ["c_attn"], "task_type": "SEQ_CLS"},
    ),
    "roberta classifier of two layers": (
        "RobertaForSequenceClassification",
        T.RobertaConfig(**SMALL | {"max_position_embeddings": 40}, **LABELS),
        {"target_modules": ["query", "dense"], "task_type": "SEQ_CLS"},
    ),
    "bert tagger": (
        "BertForTokenClassification",
        T.BertConfig(**SMALL, **LABELS),
        {"target_modules": ["query"], "task_type": "TOKEN_CLS"},
    ),
    "distilbert answers, and a norm": (
        "DistilBertForQuestionAnswering",
        DISTILBERT,
        {
            "target_modules": ["q_lin"],
            "task_type": "QUESTION_ANS",
            "modules_to_save": ["output_layer_norm"],
        },
    ),
    "vit classifier": (
        "ViTForImageClassification",
        T.ViTConfig(**SMALL | PICTURES, **LABELS),
        {"target_modules": ["q_proj", "query"], "modules_to_save": ["classifier"]},
    ),
    "mistral's embedding and norms": (
        "MistralForCausalLM",
        T.MistralConfig(**SMALL, num_key_value_heads=2),
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens", "norm"],
            "task_type": "CAUSAL_LM",
        },
    ),
    "a tied embedding alone": (
        "LlamaForCausalLM",
        T.LlamaConfig(**SMALL, tie_word_embeddings=True),
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "task_type": "CAUSAL_LM",
        },
    ),
    "a tied embedding that stays tied": (
        "LlamaForCausalLM",
        T.LlamaConfig(**SMALL, tie_word_embeddings=True),
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
            "task_type": "CAUSAL_LM",
        },
    ),
    "t5's output": (
        "T5ForConditionalGeneration",
        T.T5Config(**T5, tie_word_embeddings=False),
        {"target_modules": ["q"], "modules_to_save": ["lm_head"], "task_type": "SEQ_2_SEQ_LM"},
    ),
}


def batch_for(kind: str, rows: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    if kind.startswith("ViT"):
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    ids = torch.randint(3, 90, (rows, 6), generator=generator)
    return {"input_ids": ids} | ({"decoder_input_ids": ids[:, :4]} if kind.startswith("T5") else {})


@torch.no_grad()
def out(model, batch) -> torch.Tensor:
    return model(**batch)[0]


def changed(peft, seed: int):
    """Random numbers in all that PEFT would train."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.data = noise + (1 if parameter.ndim == 1 else 0)
    return peft.eval()


def from_peft(name: str, folder, seed: int = 1):
    """An adapter with its heads as PEFT writes it, and PEFT's model."""
    kind, config, options = KINDS[name]
    peft = changed(get_peft_model(build(kind, config), LoraConfig(r=3, **options)), seed)
    peft.save_pretrained(folder)
    return peft


def close(one, other):
    torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)
