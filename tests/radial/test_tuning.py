"""A training pass against its definition, text by text; and what training comes to."""

import pytest
import torch

from geodapt.adapters import LoraSettings
from geodapt.data.chains import Chain, Hierarchy, read_chains
from geodapt.data.lexical import LexicalPair
from geodapt.errors import InputError
from geodapt.metrics import hierarchical_retrieval, recall_at, retrieve_chains, tau_d
from geodapt.radial import (
    LossSettings,
    RadialModel,
    RootSettings,
    anchoring_loss,
    cone_loss,
    load_encoder,
    radial_loss,
)
from geodapt.radial.collator import ChainCollator
from geodapt.radial.evaluation import Measurer
from geodapt.radial.tuning import Tuner
from geodapt.training import TrainingSettings, fit
from geodapt.vision import EmbeddedImages
from tests.radial.small import save_bert, save_chains


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tuning")
    save_bert(made / "bert")
    save_chains(made / "chains.jsonl")
    return made


@pytest.fixture
def chains(folder):
    return read_chains(folder / "chains.jsonl")


def tuner(folder, settings, root=None, lora=None, shake=0.02, loss="radial"):
    """A model that has moved a little from the pretrained one."""
    model = RadialModel(load_encoder(str(folder / "bert")), root or RootSettings())
    model.spread_roots(["animal", "vehicle", "car"], seed=0)
    model.train_text_side(lora)
    made = Tuner(model, settings, loss)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(shake * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["radial", "cone"])
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize(
    "root", [RootSettings(), RootSettings(kind="learned", count=2), RootSettings(text="thing")]
)
def test_the_loss_is_the_definition_text_by_text(folder, chains, kind, lora, root):
    settings = LossSettings(weight=0.7, anchoring=3.0, eps=0.3)
    made = tuner(folder, settings, root, lora, loss=kind)
    batch = ChainCollator(made.model.encoder, root.text)(chains[::5])

    now, pretrained = made.model, load_encoder(str(folder / "bert"))
    roots = now.root_points()
    general, entailed, contradicting, own = [], [], [], []
    texts = []
    for chain in chains[::5]:
        specific = now.embed([chain.texts[-1]])[0]
        nearest = min(roots, key=lambda r: (r - specific).norm().item())
        for level in range(2):
            general.append(now.embed([chain.texts[level]])[0])
            entailed.append(now.embed([chain.texts[level + 1]])[0])
            contradicting.append(now.embed([chain.negatives[level]])[0])
            own.append(nearest)
            texts += [chain.texts[level], chain.texts[level + 1], chain.negatives[level]]
    e, p, n, r = (torch.stack(each) for each in (general, entailed, contradicting, own))
    loss = radial_loss(e, p, n, r) if kind == "radial" else cone_loss(e, p, r, 0.3)
    different = sorted(set(texts) - {root.text})
    anchor = anchoring_loss(now.embed(different), pretrained.embed(different))
    wanted = 0.7 * loss + 3.0 * anchor
    assert anchor > 1e-4
    assert made(**batch)["loss"].item() == pytest.approx(wanted.item(), abs=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_while_an_adapter_trains_its_own_dropout_acts_alone(folder, chains, dropout):
    made = tuner(folder, LossSettings(), lora=LoraSettings(rank=2, dropout=dropout)).train()
    assert made.model.encoder.model.config.hidden_dropout_prob > 0  # which must not act
    batch = ChainCollator(made.model.encoder, "")(chains[:4])
    losses = {made(**batch)["loss"].item() for _ in range(3)}
    assert len(losses) == (3 if dropout else 1)
    assert len({made.eval()(**batch)["loss"].item() for _ in range(3)}) == 1


def test_texts_that_chains_share_are_encoded_once(folder, chains):
    encoder = load_encoder(str(folder / "bert"))
    batch = ChainCollator(encoder, "")(chains)
    different = {""} | {t for c in chains for t in (*c.texts, *c.negatives)}
    assert len(batch["input_ids"]) == len(different)
    assert batch["triples"].shape == (2 * len(chains), 4)
    words = encoder.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert words[0] == ""
    told = [[words[row] for row in triple] for triple in batch["triples"].tolist()]
    first = chains[0]
    assert told[0] == [first.texts[0], first.texts[1], first.negatives[0], first.texts[2]]
    assert told[1] == [first.texts[1], first.texts[2], first.negatives[1], first.texts[2]]


def test_chains_without_negatives_are_refused(folder):
    with pytest.raises(InputError, match="has 0 negatives for 2 levels"):
        ChainCollator(load_encoder(str(folder / "bert")), "")([Chain(("animal", "bird"))])


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["full", "lora"])
def test_training_orders_radii_and_keeps_what_was(folder, chains, lora, tmp_path):
    hierarchy = Hierarchy("chains", chains, chains)
    settings = LossSettings(anchoring=1.0)
    made = tuner(folder, settings, lora=lora, shake=0)
    before = Measurer(made.model, hierarchy).figures()
    still = [p.clone() for p in made._pretrained[0].parameters()] if lora is None else []
    rate = 1e-3 if lora is None else 1e-2
    fit(
        made,
        chains,
        TrainingSettings(steps=40, batch_size=8, learning_rate=rate, tensorboard=False),
        work=tmp_path,
        collate=ChainCollator(made.model.encoder, ""),
    )
    after = Measurer(made.model, hierarchy).figures()
    assert after["tau_d"] > max(0.9, before["tau_d"])
    for one, two in zip(still, made._pretrained[0].parameters(), strict=False):
        assert torch.equal(one, two)


@pytest.mark.slow
def test_a_learned_root_moves_and_a_fixed_one_does_not(folder, chains, tmp_path):
    for kind in ("learned", "fixed"):
        made = tuner(folder, LossSettings(), RootSettings(kind=kind), shake=0)
        before = made.model.root_points()
        fit(
            made,
            chains,
            TrainingSettings(steps=3, learning_rate=1e-3, tensorboard=False),
            work=tmp_path / kind,
            collate=ChainCollator(made.model.encoder, ""),
        )
        moved = (made.model.root_points() - before).norm().item()
        assert (moved > 1e-4) == (kind == "learned")


# --- measures -----------------------------------------------------------------------------------


def test_figures_are_those_of_their_definitions(folder, chains):
    model = RadialModel(load_encoder(str(folder / "bert")))
    # Two chains an image, so that a caption has another of its image to find.
    paired = [Chain(c.texts, c.negatives, str(number // 2)) for number, c in enumerate(chains)]
    found = Measurer(model, Hierarchy("chains", chains, paired)).figures()
    root = model.root_points()[0]
    radii = torch.stack([(model.embed(c.texts) - root).norm(dim=-1) for c in paired])
    assert found["tau_d"] == pytest.approx(tau_d(radii), abs=1e-9)

    texts = list(dict.fromkeys(text for chain in paired for text in chain.texts))
    vectors = model.embed(texts)
    pairs = [paired[2 * n : 2 * n + 2] for n in range(len(paired) // 2)]
    last = [[texts.index(chain.texts[-1]) for chain in pair] for pair in pairs]
    queries = torch.stack([vectors[rows].mean(0) for rows in last])
    retrieved = retrieve_chains(
        torch.nn.functional.normalize(queries, dim=-1) @ vectors.T, (vectors - root).norm(dim=-1)
    )
    references = [[[texts.index(t) for t in c.texts] for c in pair] for pair in pairs]
    wanted = hierarchical_retrieval(retrieved, references)
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)

    captions = model.embed([chain.texts[-1] for chain in paired])
    scores = (captions @ captions.T).fill_diagonal_(-torch.inf)
    same = torch.tensor([[a.group == b.group and a is not b for b in paired] for a in paired])
    wanted = recall_at(scores, same)
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)


def test_images_without_a_second_caption_have_no_plain_retrieval(folder, chains):
    model = RadialModel(load_encoder(str(folder / "bert")))
    assert "recall_at_1" not in Measurer(model, Hierarchy("chains", chains, chains)).figures()


def test_leaves_are_classified_among_inner_nodes(folder):
    model = RadialModel(load_encoder(str(folder / "bert")))
    test = [Chain(("thing", "animal", "bird")), Chain(("thing", "vehicle", "car", "a red car"))]
    classes = ["thing", "animal", "vehicle", "car"]
    found = Measurer(model, Hierarchy("tree", test, test, classes)).figures()
    vectors = model.embed(classes)
    hits = []
    for leaf, right in (("bird", 1), ("a red car", 3)):
        hits.append((model.embed([leaf])[0] @ vectors.T).argmax().item() == right)
    assert found["class_recall_at_1"] == sum(hits) / 2
    assert found["class_recall_at_5"] == 1


def test_lexical_entailment_is_measured_at_the_general_word(folder, chains):
    model = RadialModel(load_encoder(str(folder / "bert")))
    pairs = [
        LexicalPair("bird", "animal", 6.0),
        LexicalPair("animal", "bird", 2.0),
        LexicalPair("car", "animal", 0.0),
        LexicalPair("car", "vehicle", 5.0),
    ]
    found = Measurer(model, Hierarchy("chains", chains, chains)).lexical_entailment(pairs)
    root = model.root_points()[0]
    angles = []
    for pair in pairs:
        e, x = model.embed([pair.general])[0], model.embed([pair.specific])[0]
        cosine = torch.cosine_similarity(e - root, x - e, dim=0)
        angles.append(torch.arccos(cosine).item())
    order = sorted(range(4), key=lambda n: -angles[n])
    ranks = [order.index(n) + 1 for n in range(4)]
    wanted = torch.corrcoef(torch.tensor([ranks, [4, 2, 1, 3]]).double())[0, 1].item()
    assert found == pytest.approx(wanted, abs=1e-6)


def test_images_are_queries_and_a_group_may_have_several(folder, chains):
    model = RadialModel(load_encoder(str(folder / "bert")))
    generator = torch.Generator().manual_seed(0)
    test = chains[::4]
    names = [chain.group for chain in test] * 2
    vectors = torch.nn.functional.normalize(
        torch.randn(len(names), 32, generator=generator), dim=-1
    )
    images = EmbeddedImages(vectors, names, [])
    classes = list({chain.texts[1]: None for chain in test})
    found = Measurer(model, Hierarchy("chains", chains, test, classes), images).figures()

    texts = list(dict.fromkeys(text for chain in test for text in chain.texts))
    candidates, root = model.embed(texts), model.root_points()[0]
    retrieved = retrieve_chains(vectors @ candidates.T, (candidates - root).norm(dim=-1))
    references = [[[texts.index(t) for t in c.texts]] for c in [*test, *test]]
    wanted = hierarchical_retrieval(retrieved, references)
    captions = model.embed([chain.texts[-1] for chain in test])
    same = torch.tensor([[chain.group == name for name in names] for chain in test])
    wanted |= recall_at(captions @ vectors.T, same)
    back = recall_at(vectors @ captions.T, same.T)
    wanted |= {f"text_{name}": value for name, value in back.items()}
    right = torch.tensor([[c.texts[1] == name for name in classes] for c in [*test, *test]])
    back = recall_at(vectors @ model.embed(classes).T, right)
    wanted |= {f"class_{name}": value for name, value in back.items()}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)


def test_images_that_belong_to_no_chain(folder, chains):
    model = RadialModel(load_encoder(str(folder / "bert")))
    other = EmbeddedImages(torch.zeros(1, 32), ["other.png"], [])
    with pytest.raises(InputError, match="no test chain belongs to an image"):
        Measurer(model, Hierarchy("chains", chains, chains), other)
