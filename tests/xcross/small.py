"""Small random bases of several families, their adapters, batches and tokenizers."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from geodapt.adapters import AdapterBank
from geodapt.helm import HelmConfig, HelmModel
from geodapt.xcross.encoders import XCrossEncoder
from geodapt.xcross.head import Head
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import IntegratorSettings

VOCABULARY, WIDTH = 300, 32
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
DECODERS = {"llama", "qwen", "helm", "helm-mice"}
LATENT = {
    "attention": "mla",
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}


def base(family: str) -> PreTrainedModel:
    """The same small model at every call."""
    torch.manual_seed(7)
    match family:
        case "bert":
            model = BertModel(BertConfig(**SIZES), add_pooling_layer=False)
        case "roberta":
            model = RobertaModel(RobertaConfig(**SIZES), add_pooling_layer=False)
        case "deberta":
            relative = {"relative_attention": True, "position_buckets": 8, "share_att_key": True}
            more = {"pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"}
            model = DebertaV2Model(
                DebertaV2Config(**SIZES, **relative, **more, position_biased_input=False)
            )
        case "modernbert":
            local = {"local_attention": 4, "global_attn_every_n_layers": 2}
            ends = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
            model = ModernBertModel(ModernBertConfig(**SIZES, **local, **ends))
        case "t5":
            sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
            model = T5Model(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes))
        case "llama":
            model = LlamaModel(LlamaConfig(**SIZES, num_key_value_heads=2))
        case "qwen":
            model = Qwen3Model(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8))
        case "helm":
            model = HelmModel(HelmConfig(**SIZES, initializer_range=0.1))
        case "helm-mice":
            experts = {"n_routed_experts": 3, "moe_intermediate_size": 24}
            model = HelmModel(HelmConfig(**SIZES, **LATENT, **experts, initializer_range=0.1))
    return model.eval()


# (rank, alpha, targets). Scales are powers of two, so that folding them in does not round.
ADAPTERS = {
    "toys": (4, 8, r".*(query|query_proj|q_proj|Wqkv|q|value|value_proj|v_proj|v|kv_b_proj)"),
    "books": (2, 4, "all-linear"),
    "tools": (3, 3, r".*(query|query_proj|q_proj|Wqkv|q|Wi|wi|down_proj|output\.dense)"),
    "music": (1, 2, r".*(key|key_proj|k_proj|k|Wo|wo|up_proj|intermediate\.dense)"),
}


def filled_bank(model: PreTrainedModel, names=tuple(ADAPTERS), std: float = 0.15) -> AdapterBank:
    """A bank with some of :data:`ADAPTERS`, filled with the same random numbers at every call."""
    bank = AdapterBank(model)
    for number, name in enumerate(names):
        rank, alpha, targets = ADAPTERS[name]
        bank.create(name, rank=rank, alpha=alpha, targets=targets)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for factor in bank.parameters_of(name):
                factor.normal_(std=std, generator=generator)
        bank.train_only(name)  # what trained is what the bank keeps
    bank.train_only()
    return bank


def batch(
    rows: int = 2, candidates: int = 2, tokens: int = 7, padded: bool = True
) -> dict[str, torch.Tensor]:
    """Random prompts as the collator lays them out, of different lengths when padded."""
    generator = torch.Generator().manual_seed(rows + candidates)
    shape = (rows, candidates, tokens)
    ids = torch.randint(3, VOCABULARY, shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.long)
    if padded:
        lengths = torch.randint(2, tokens + 1, shape[:2], generator=generator)
        lengths[0, 0] = tokens
        mask = (torch.arange(tokens) < lengths[..., None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def shaken(scorer: Scorer, std: float = 0.5) -> Scorer:
    """Give what starts at zero values that do something: integrators, w, biases."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in scorer.named_parameters():
            if parameter.requires_grad and not name.startswith("encoder.base"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * std)
    return scorer


def xcross_scorer(
    bank: AdapterBank, names=("toys", "books", "tools"), outputs: int = 1, pooling="auto", **changed
) -> Scorer:
    """X-Cross with a head, as it starts."""
    torch.manual_seed(1)
    settings = IntegratorSettings(**changed)
    encoder = XCrossEncoder(bank.model, bank, names, settings, pooling)
    return Scorer(encoder, Head(WIDTH, 12, outputs)).eval()


def tokenizer(corpus: list[str], decoder: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with BERT's special tokens, or with a decoder's."""
    special = ["<pad>", "<s>", "</s>"] if decoder else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    if decoder:
        model.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=model, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
        )
    model.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
