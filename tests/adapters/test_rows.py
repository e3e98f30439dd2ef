"""A gate that treats rows differently is right, or refused, wherever a layer holds the rows."""

import pytest
import torch
import transformers as T
from torch import nn
from torch.utils.checkpoint import checkpoint

from geodapt.adapters import AdapterBank, Mix, Route, TopAtoms
from geodapt.adapters.execution.row_layout import RowLayout, combine_layouts, locate_rows, splits
from geodapt.errors import InputError
from tests.adapters import zoo
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import inputs, seeded

ROWS = ("toys", "books")


def outputs(result) -> list[torch.Tensor]:
    values = [result] if isinstance(result, torch.Tensor) else result.values()
    return [v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]


def row(batch: dict, i: int) -> dict:
    return {name: tensor[i : i + 1] for name, tensor in batch.items()}


@torch.no_grad()
def check(bank: AdapterBank, batch: dict, gate, alone) -> None:
    """The gate on the batch gives what each row gives alone, under its own gate."""
    wanted = []
    for i, each in enumerate(alone):
        with bank.use(each):
            wanted.append(outputs(bank.model(**row(batch, i))))
    with bank.use(gate):
        found = outputs(bank.model(**batch))
    for value, *rows in zip(found, *wanted, strict=True):
        if value.shape[0] == 2 and value.shape[1:] == rows[0].shape[1:]:
            torch.testing.assert_close(value, torch.cat(rows), atol=2e-5, rtol=1e-4)


SEQUENCE = TopAtoms(2, Mix({"toys": 1.0, "books": 0.5}), per="sequence")
RIGHT = {
    "fsmt": (zoo.fsmt, ["fc1", "fc2", "q_proj", "v_proj"]),  # tokens first
    "led": (zoo.led, ["query", "value_global", "output", "fc1"]),  # both, by layer
    "longformer": (zoo.longformer, ["key", "query_global", "dense"]),
    "switch": (zoo.switch, ["q", "k", "v", "o"]),
    "deepseek": (zoo.deepseek, r".*(q_a_proj|shared_experts.*_proj)"),  # shared experts, flat
    "swinv2": (zoo.swinv2, ["query", "dense", "reduction"]),  # windows
    "conformer": (zoo.conformer, ["linear_q", "pointwise_conv1", "intermediate_dense"]),
    "wavlm": (zoo.wavlm, ["intermediate_dense", "projection"]),
    "clip": (zoo.clip, ["fc1", "q_proj", "visual_projection", "text_projection"]),
    "llava": (zoo.llava, r".*language_model.*(q|gate)_proj"),
    "encoder": (zoo.encoder, ["linear1", "linear2"]),
    # learned queries, the same in every row
    "perceiver": (zoo.perceiver, ["query", "key", "value", "dense1"]),
    "blip2": (zoo.blip2, r".*(attention\.(query|value)|q_proj|qkv)"),
    "kosmos2": (zoo.kosmos2, r".*(q_proj|v_proj|fc1)"),
}
REFUSED = {
    "switch": (zoo.switch, r".*expert.*(wi|wo)", "orders them by their content|the rows. content"),
    "swinv2": (zoo.swinv2, r".*position_bias_mlp.*", "does not depend on the rows"),
    "conformer": (zoo.conformer, ["linear_pos"], "does not depend on the rows"),
    "pictures of one row": (
        lambda: zoo.llava((2, 0)),
        r".*vision_tower.*fc1",
        "does not depend on the rows",
    ),
    "two pictures": (lambda: zoo.llava((2, 0)), r".*projector.*", "does not depend on the rows"),
    "tokens first": (lambda: zoo.encoder(False), ["linear1"], "does not keep the rows apart"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_rows_get_their_own_adapters(name):
    make, targets = RIGHT[name]
    model, batch = make()
    bank = filled(model.eval(), targets)
    if name == "llava":
        check_pictures(bank, batch)
        return
    check(bank, batch, Route(ROWS), ROWS)
    check(bank, batch, SEQUENCE, [SEQUENCE] * 2)


@torch.no_grad()
def check_pictures(bank: AdapterBank, batch: dict) -> None:
    for counts in ((1, 1), (2, 0)):
        _, batch = zoo.llava(counts)
        wanted = []
        for i, name in enumerate(ROWS):
            here = slice(sum(counts[:i]), sum(counts[: i + 1]))
            own = {"pixel_values": batch["pixel_values"][here]} if counts[i] else {}
            with bank.use(name):
                wanted.append(bank.model(input_ids=batch["input_ids"][i : i + 1], **own).logits)
        with bank.use(Route(ROWS)):
            torch.testing.assert_close(bank.model(**batch).logits, torch.cat(wanted))


@torch.no_grad()
def test_a_picture_in_each_row_is_told_apart_and_another_placement_refused():
    model, batch = zoo.llava()
    bank = filled(model.eval(), ["fc1", "q_proj", "linear_1"])
    check(bank, batch, Route(ROWS), ROWS)
    for counts in ((2, 0), (0, 2), (1, 1)):  # once they are not in order, they stay unknown
        with bank.use(Route(ROWS)), pytest.raises(InputError, match="does not depend on the rows"):
            bank.model(**zoo.llava(counts)[1])


class Sorts(torch.nn.Module):
    """A layer gets queries, the same in each row, and the rows in an order of their content."""

    def __init__(self):
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(1, 3, 8))
        self.shared = torch.nn.Linear(8, 8)

    @staticmethod
    def rank(x):
        return (99 * x.sum((1, 2))).sin()

    def forward(self, x):
        queries = self.shared(self.queries.expand(len(x), -1, -1))
        seen = torch.softmax(queries @ x.mT, -1) @ x
        order = self.rank(x).argsort()
        return seen + self.shared(x.mean(1)[order])[order.argsort()].unsqueeze(1)


@torch.no_grad()
def test_what_is_known_of_learned_queries_says_nothing_of_a_layers_other_inputs():
    bank, x = filled(Sorts(), ["shared"]), torch.randn(2, 4, 8)
    x = x[Sorts.rank(x).argsort()]  # in order, as the next need not be
    for batch in (x, x.flip(0)):
        with bank.use(Route(ROWS)), pytest.raises(InputError, match="by their content"):
            bank.model(batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("gate", [Route(ROWS), SEQUENCE])
@torch.no_grad()
def test_layers_whose_rows_cannot_be_told_apart_are_refused(name, gate):
    make, targets, reason = REFUSED[name]
    model, batch = make()
    bank = filled(model.eval(), targets)
    path = next(iter(bank["toys"].factors)).rsplit(".", 1)[0].split(".")[0]
    for _ in range(2):  # later calls are no luckier
        with bank.use(gate), pytest.raises(InputError, match=rf"(?s)layer .*{path}.*({reason})"):
            bank.model(**batch)
    with bank.use(Route(["toys", "toys"])):  # both alike: nothing to tell apart
        found = outputs(bank.model(**batch))[0]
    with bank.use("toys"):
        torch.testing.assert_close(found, outputs(bank.model(**batch))[0])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}])
@pytest.mark.parametrize("family", ["bart", "fsmt", "whisper"])
def test_a_route_lives_through_the_generation_of_an_encoder_and_a_decoder(family, options):
    if family == "fsmt":
        model, batch = zoo.fsmt("FSMTForConditionalGeneration")
        batch = {"input_ids": batch["input_ids"]}
    elif family == "bart":
        model = T.BartForConditionalGeneration(
            T.BartConfig(vocab_size=100, max_position_embeddings=64, init_std=0.3, **zoo.SEQ2SEQ)
        )
        batch = {"input_ids": zoo.ids()}
    else:
        config = T.WhisperConfig(
            vocab_size=100,
            num_mel_bins=8,
            max_source_positions=20,
            max_target_positions=20,
            init_std=0.3,
            **{"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
            **{"pad_token_id": 0, "suppress_tokens": None, "begin_suppress_tokens": None},
            **zoo.SEQ2SEQ,
        )
        model = T.WhisperForConditionalGeneration(config)
        batch = {"input_features": torch.randn(2, 8, 40)}
    bank = filled(model.eval(), ["q_proj", "fc1"], std=1.0)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False} | options
    alone = []
    for i, name in enumerate(ROWS):
        with bank.use(name):
            alone.append(model.generate(**row(batch, i), **options))
    with bank.use(Route(ROWS)):
        together = model.generate(**batch, **options)
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("prompt", ["equal", "first token alone", "left padding"])
def test_prompts_in_which_rows_are_hard_to_tell_apart(prompt):
    bank = filled(seeded("llama"), ["q_proj", "down_proj"], std=1.0)
    batch = {"input_ids": torch.arange(5, 11).repeat(2, 1)}
    if prompt == "first token alone":
        batch = {"input_ids": torch.tensor([[1], [1]])}
    if prompt == "left padding":
        batch["input_ids"][0, :4] = 0
        batch["attention_mask"] = (batch["input_ids"] != 0).long()
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    with bank.use(Route(ROWS)):
        together = bank.model.generate(**batch, **options)
    for i, name in enumerate(ROWS):
        with bank.use(name):
            assert torch.equal(together[i], bank.model.generate(**row(batch, i), **options)[0])


@pytest.mark.parametrize("family", ["DeiT", "DPT"])
def test_inputs_of_a_common_seed_are_no_noise_of_ours(family):
    config = getattr(T, f"{family}Config")(**zoo.VISION)  # no bias before the first norm
    bank = filled(getattr(T, f"{family}Model")(config).eval(), r".*layer.*(query|q_proj)")
    for seed in range(4):
        noise = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        bank.runner.rows.forget()
        check(bank, {"pixel_values": noise[:2]}, Route(ROWS), ROWS)
        with bank.use(Route([*ROWS, None])):
            bank.model(pixel_values=noise)


def test_as_many_tokens_as_rows():
    for name in ("fsmt", "deepseek"):
        make, targets = RIGHT[name]
        model, batch = make()
        bank = filled(model.eval(), targets)
        check(bank, {name: ids[:, :2] for name, ids in batch.items()}, Route(ROWS), ROWS)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_more_rows_than_entries_are_refused_outside_of_generate(family):
    bank = filled(seeded(family), ["q_proj", "query"])
    for rows in (4, 3, 1):
        with bank.use(Route(ROWS)), pytest.raises(InputError, match=rf"2 entries.* {rows} rows"):
            bank.model(**inputs(family, rows))
    check(bank, inputs(family, 2), Route(ROWS, blocks=True), ROWS)


def test_a_deeper_call_of_a_layer_takes_the_first_dimension_for_the_rows():
    bank = filled(seeded("llama"), ["q_proj"])
    layer = bank.model.model.layers[0].self_attn.q_proj
    x = torch.randn(2, 3, 32)
    with bank.use(Route(ROWS)), pytest.raises(InputError, match=r"2 entries.* 4 rows"):
        layer(torch.randn(4, 3, 32))
    with bank.use(Route(ROWS)):
        found = layer(x)
    for i, name in enumerate(ROWS):
        with bank.use(name):
            torch.testing.assert_close(found[i], layer(x[i]))


@pytest.mark.parametrize("make", [zoo.fsmt, zoo.led])
def test_gradients_of_layers_with_the_tokens_first(make):
    model, batch = make()
    bank = filled(model.eval().double(), ["fc1", "query", "v_proj"])
    bank.train_only(*ROWS)

    def gradients(losses) -> list[torch.Tensor]:
        for loss in losses:
            loss.backward()
        found = [p.grad for name in ROWS for p in bank.parameters_of(name)]
        for name in ROWS:
            for parameter in bank.parameters_of(name):
                parameter.grad = None
        return found

    def loss(gate, batch):
        with bank.use(gate):
            return outputs(model(**batch))[0].square().sum()

    wanted = gradients(loss(name, row(batch, i)) for i, name in enumerate(ROWS))
    for found, each in zip(gradients([loss(Route(ROWS), batch)]), wanted, strict=True):
        torch.testing.assert_close(found, each, atol=1e-6, rtol=1e-5)
    with bank.use(Route(ROWS)):  # recomputed after the call has ended
        run = bank.bind(lambda **batch: outputs(model(**batch))[0])
        later = checkpoint(run, use_reentrant=False, **batch).square().sum()
    for found, each in zip(gradients([later]), wanted, strict=True):
        torch.testing.assert_close(found, each, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_layers_with_the_tokens_first():
    model = TokensFirst()
    bank = filled(model, "all-linear")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    batch = {"x": torch.randn(2, 5, 8)}
    for entries in (ROWS, ROWS[::-1]):
        check(bank, batch, Route(entries), entries)
        with bank.use(Route(entries)):
            torch.testing.assert_close(compiled(**batch), model(**batch))
    again = TokensFirst()
    again.load_state_dict(model.state_dict())
    with bank.use(Route(ROWS)):
        wanted = model(**batch)
    again.forward = torch.compile(again.forward, backend="aot_eager")
    with filled(again, "all-linear").use(Route(ROWS)):
        torch.testing.assert_close(again(**batch), wanted)
    part = torch.compile(model.second, backend="aot_eager")
    with bank.use(Route(ROWS)), pytest.raises(InputError, match="compile the whole model"):
        part(torch.randn(2, 5, 8))


class TokensFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.second(self.first(x.transpose(0, 1)).tanh()).transpose(0, 1)


class Counts(nn.Module):
    """Keeps a running statistic of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        return x


def test_looking_for_the_rows_leaves_no_trace():
    """Random numbers, caches, statistics and gradients stay as they were."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 4))
    bank = filled(model.train(), "all-linear")
    x = torch.randn(2, 5, 4, requires_grad=True)
    found = []
    for _ in range(2):  # the second call looks no more
        torch.manual_seed(3)
        with bank.use(Route(ROWS)):
            found.append(model(x))
    assert torch.equal(*found)
    (gradient,) = torch.autograd.grad(found[0].sum(), x)
    assert gradient.abs().sum() > 0
    counting = nn.Sequential(nn.Linear(4, 6), Counts())
    bank = filled(counting.train(), "all-linear")
    with bank.use(Route(ROWS)):
        counting(torch.randn(2, 4))
    assert counting[1].calls == 1


@pytest.mark.parametrize("rows", [2, 3, 5])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_layout_is_located_and_undone(rows, k):
    for dim in range(3):
        for tiled in (False, True)[: 2 if k > 1 else 1]:
            layout = RowLayout(dim, tiled, frozenset({k}))
            shape = [7, 7, 7]
            shape[dim] = rows * k
            x = torch.randn(*shape, 4)
            first = layout.rows_first(x, rows)
            assert torch.equal(layout.put_back(first, x), x)
            changes = []
            for chosen in splits(rows):
                other = first.clone()
                other[chosen] += 1
                changes.append(((layout.put_back(other, x) != x).any(-1), chosen))
            assert locate_rows(changes, rows) == layout


def test_what_two_calls_show_together():
    runs, tiles, one = RowLayout(0, False, {2}), RowLayout(0, True, {3}), RowLayout(0, False, {1})
    assert combine_layouts(one, tiles) == RowLayout(0, True, frozenset({1, 3}))
    assert isinstance(combine_layouts(runs, tiles), str)
    assert isinstance(combine_layouts(runs, RowLayout(1)), str)
    assert combine_layouts("why", runs) == "why"
    x = torch.zeros(6, 4, 8)
    assert not one.fits(x, 2, {4})
    assert runs.fits(x, 2, {4})
    assert not runs.fits(x[0], 4, {4})  # flat: of another number than any input's length
    assert runs.fits(torch.zeros(8, 8), 2, {4})
