"""A small base with a tokenizer and a chat template, and adapters of it in a folder."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from geodapt.adapters import AdapterBank

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('the system speaks first') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def small_tokenizer():
    """Bytes and some pairs of them; special tokens 0 to 2."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = ByteLevel()
    words.train_from_iterator(
        ["A train, a drill and a hose went to the shop of toys and tools"],
        trainers.BpeTrainer(
            vocab_size=290,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE,
    )


def small_base(tokenizer, positions=256, seed=0):
    """A Llama whose answers vary from token to token."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def write_adapter_folders(model, folder, names, rank=4):
    """A PEFT folder a name, each with weights of its own."""
    bank = AdapterBank(model)
    for name in names:
        bank.create(name, rank=rank, targets=["q_proj", "v_proj"])
        for parameter in bank.parameters_of(name):
            torch.nn.init.normal_(parameter, std=0.3)
        bank.save(name, folder / name)
    bank.close()


def write_base_and_adapters(folder: Path) -> Path:
    """``base`` and ``adapters/toys``, ``adapters/tools`` in a folder, which is returned."""
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(folder / "base")
    model = small_base(tokenizer)
    model.save_pretrained(folder / "base")
    write_adapter_folders(model, folder / "adapters", ["toys", "tools"])
    return folder
