"""The probe on spaces whose answer is known, on real ones, and on what it must refuse."""

import json

import networkx as nx
import numpy as np
import pytest
import torch
import typer
from safetensors.numpy import save_file
from transformers import ViTConfig, ViTModel, Wav2Vec2Config, Wav2Vec2Model
from typer.testing import CliRunner

from geodapt import probe
from geodapt.cli.probe import probe as command
from geodapt.errors import InputError
from geodapt.geometry import hyperbolicity, mds
from geodapt.probe import figures as figures_module
from geodapt.probe.summary import as_json, summary_table

NORMAL = np.random.default_rng(0).normal(size=(150, 4))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(figures_module, "STEPS", 60)
    monkeypatch.setattr(figures_module, "DRAWN", 60)
    monkeypatch.setattr(figures_module, "EDGES", 60)
    monkeypatch.setattr(figures_module, "EXACT", 60)


def write_edges(path, graph):
    names = {node: f"node {node}".replace(" ", "_") for node in graph}
    path.write_text("".join(f"{names[a]}\t{names[b]}\n" for a, b in graph.edges))
    return str(path)


@pytest.mark.slow
def test_a_tree_is_hyperbolic(tmp_path):
    source = probe.load_source(write_edges(tmp_path / "tree.tsv", nx.balanced_tree(3, 4)))
    measured = probe.measure(source)
    said = probe.verdict(measured)
    assert measured.data.delta.delta == measured.data.average_delta == 0
    assert said.answer == "likely"
    assert "exactly those of a tree" in said.reasons[0]


@pytest.mark.slow
def test_a_grid_is_not(tmp_path):
    source = probe.load_source(write_edges(tmp_path / "grid.tsv", nx.grid_2d_graph(11, 11)))
    measured = probe.measure(source)
    assert measured.data.delta.delta <= 10 <= measured.data.delta.upper
    assert probe.verdict(measured).answer == "unlikely"


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 64])
def test_a_euclidean_cloud_is_its_own_control(tmp_path, d):
    np.save(tmp_path / "cloud.npy", np.random.default_rng(1).normal(size=(200, d)))
    measured = probe.measure(probe.load_source(str(tmp_path / "cloud.npy")))
    assert 0.75 < measured.departure < 1.3
    assert measured.data.gain == pytest.approx(measured.control.gain, rel=0.2)
    assert probe.verdict(measured).answer == "unlikely"


@pytest.mark.parametrize("d", [1, 2, 20, 300, 2000])
def test_the_control_of_a_cloud_is_like_it(d):
    """Even where the sample has fewer points than the space dimensions."""
    x = torch.randn(300, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    control = figures_module.control_cloud(distances, torch.Generator().manual_seed(2))
    assert control.mean().item() == pytest.approx(distances.mean().item(), rel=0.1)
    found, expected = (hyperbolicity.average_delta(each) for each in (control, distances))
    assert found == pytest.approx(expected, rel=0.1, abs=1e-6)


def test_the_control_keeps_unequal_axes():
    x = torch.randn(400, 5, dtype=torch.float64) * torch.tensor([5.0, 3, 1, 0.3, 0.1])
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    control = figures_module.control_cloud(distances, torch.Generator().manual_seed(0))
    found = mds.classical_scaling(control, 5).std(0)
    torch.testing.assert_close(found, x.std(0).sort(descending=True).values, rtol=0.1, atol=0.1)


def test_the_same_metric_read_in_every_way(tmp_path):
    vectors = NORMAL.astype(np.float32)
    np.save(tmp_path / "a.npy", vectors)
    save_file({"x": vectors, "bias": vectors[0]}, tmp_path / "b.safetensors")
    rows = "\n".join(
        ",".join([f"p{i}", *map(repr, map(float, row))]) for i, row in enumerate(vectors)
    )
    (tmp_path / "c.csv").write_text("name,a,b,c,d\n" + rows)
    d = np.linalg.norm(vectors[:, None].astype(float) - vectors, axis=-1)
    np.save(tmp_path / "d.npy", d)
    read = [probe.load_source(str(path)) for path in sorted(tmp_path.iterdir())]
    assert [source.kind for source in read] == ["vectors", "vectors", "vectors", "distances"]
    for source in read:
        np.testing.assert_allclose(source.distances, d, atol=1e-6)
    assert read[2].labels[:2] == ["p0", "p1"]
    assert probe.load_source(str(tmp_path / "d.npy"), kind="vectors").kind == "vectors"


def test_numbered_edges_need_to_be_called_edges(tmp_path):
    (tmp_path / "e.csv").write_text("0,1\n1,2\n2,3\n")
    with pytest.raises(InputError, match="--header or --no-header, or --kind edges"):
        probe.load_source(str(tmp_path / "e.csv"))
    read = probe.load_source(str(tmp_path / "e.csv"), header=False, columns=["1-2"])
    assert (read.kind, read.total) == ("vectors", 3)
    source = probe.load_source(str(tmp_path / "e.csv"), kind="edges")
    assert source.distances.max() == 3


def test_large_sources_are_sampled_aloud(tmp_path):
    np.save(tmp_path / "many.npy", np.random.default_rng(0).normal(size=(5000, 3)))
    source = probe.load_source(str(tmp_path / "many.npy"), sample=50)
    assert source.total == 5000
    assert len(source.labels) == 50
    assert source.notes == ["a random sample of 50 of 5,000 points"]
    again = probe.load_source(str(tmp_path / "many.npy"), sample=50)
    assert torch.equal(source.distances, again.distances)
    other = probe.load_source(str(tmp_path / "many.npy"), sample=50, seed=1)
    assert not torch.equal(source.distances, other.distances)


def test_sampled_graphs_stay_connected(tmp_path):
    graph = nx.disjoint_union(nx.balanced_tree(2, 8), nx.path_graph(5))
    source = probe.load_source(write_edges(tmp_path / "t.tsv", graph), sample=100)
    assert source.total == 511
    assert len(source.notes) == 2
    assert len(source.labels) == 100
    assert torch.isfinite(source.distances).all()


def test_model_embeddings(tmp_path, bert):
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(40))]
    words += ["[unused0]", "<|reserved_special_token_7|>", "unused", "[unused]"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    vectors, labels = probe.embeddings.model_embeddings(str(tmp_path))
    assert labels == [*words[:45], "unused", "[unused]"]
    rows = bert.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(vectors, rows[[*range(45), 47, 48]])


def test_class_embeddings(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    names = {i: f"class {i}" for i in range(7)}
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config = BertConfig(
        vocab_size=50, id2label=names, label2id={n: i for i, n in names.items()}, **sizes
    )
    model = BertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    vectors, labels = probe.embeddings.model_embeddings(str(tmp_path), "classes")
    assert labels == list(names.values())
    np.testing.assert_array_equal(vectors, model.classifier.weight.detach().numpy())


SOUND = Wav2Vec2Config(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    conv_dim=(8,),
    conv_stride=(2,),
    conv_kernel=(3,),
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
)
PICTURES = ViTConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=8,
    patch_size=4,
)


@pytest.mark.parametrize(("kind", "config"), [(Wav2Vec2Model, SOUND), (ViTModel, PICTURES)])
def test_model_without_embeddings(kind, config, monkeypatch):
    monkeypatch.setattr("geodapt.models.load_base", lambda base: (kind(config), None))
    with pytest.raises(InputError, match="no token embeddings"):
        probe.load_source("waves")


@pytest.mark.slow
def test_page_and_command(tmp_path):
    application = typer.Typer()
    application.command()(command)
    edges = write_edges(tmp_path / "t</script>.tsv".replace("/", ""), nx.balanced_tree(2, 5))
    out = tmp_path / "page.html"
    run = CliRunner().invoke(application, [edges, "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "likely to pay" in run.output
    assert "Of 63 points" in run.stdout
    page = out.read_text()
    assert "t<script>" not in page  # the file's name is text
    assert "t&lt;script&gt;.tsv" in page
    assert "node_0" in page
    assert "src=" not in page  # nothing is fetched
    assert "Content-Security-Policy" in page
    assert "var(--paper)" in page  # the look of the reports
    run = CliRunner().invoke(application, [edges, "--out", str(out), "--json"])
    figures = json.loads(run.stdout)
    assert figures["verdict"] == "likely"
    assert figures["points"] == figures["sampled"] == 63
    sampled = CliRunner().invoke(
        application, [edges, "--out", str(out), "--json", "--sample", "20"]
    )
    assert json.loads(sampled.stdout)["sampled"] == 20
    assert "a connected sample of 20 of 63 nodes" in sampled.stderr


@pytest.mark.slow
def test_figures_on_the_page_are_those_measured():
    source = probe.load_source("classes", sample=60)
    measured = probe.measure(source)
    numbers = json.loads(as_json(measured, probe.verdict(measured)))
    shown = {name: data for name, data, _ in summary_table(measured)}
    assert shown["diameter"] == f"{numbers['data']['diameter']:.4g}"
    assert numbers["data"]["relative_delta"] == measured.data.delta.relative


@pytest.mark.slow
def test_flat_data_are_off_by_little_not_by_nothing(tmp_path):
    flat = np.random.default_rng(3).normal(size=(30, 8))
    measured = probe.measure(probe.load_source(save(tmp_path / "flat.npy", flat)))
    cells = [cell for name, *cells in summary_table(measured) for cell in cells if "dimen" in name]
    shares = [float(share.rstrip("%")) for cell in cells for share in cell.split(" / ")]
    assert len(shares) == 8
    assert min(shares) > 0


def save(path, array):
    np.save(path, array)
    return str(path)


BAD = {
    "empty text": ("a.csv", lambda p: p.write_text(""), "is empty"),
    "one point": ("a.npy", lambda p: save(p, np.ones((1, 3))), "at least two"),
    "no points": ("a.npy", lambda p: save(p, np.ones((0, 3))), "at least two"),
    "NaN": ("a.npy", lambda p: save(p, np.array([[0.0, 1], [np.nan, 2]])), "row 1 holds NaN"),
    "all equal": ("a.npy", lambda p: save(p, np.ones((5, 3))), "coincide"),
    "not a matrix": ("a.npy", lambda p: save(p, np.ones((5, 3, 2))), "expected rows of vectors"),
    "words": ("a.npy", lambda p: save(p, np.array([["a", "b"]])), "expected real numbers"),
    "pickled": ("a.npy", lambda p: np.save(p, np.array([{}], dtype=object)), "not a readable"),
    "not numpy": ("a.npy", lambda p: p.write_text("nonsense"), "not a readable"),
    "ragged": ("a.csv", lambda p: p.write_text("1,2,3\n4,5\n6,7,8\n"), "line 2: 2 fields"),
    "word among numbers": ("a.csv", lambda p: p.write_text("1,2,3\n4,x,6\n"), "line 2: 'x' is not"),
    "asymmetric": (
        "a.npy",
        lambda p: save(p, np.triu(np.ones((4, 4)), 1)),
        "not symmetric",
    ),
    "negative": ("a.npy", lambda p: save(p, np.eye(4) - np.ones((4, 4))), "expected 0 or more"),
    "loop only": ("a.tsv", lambda p: p.write_text("x\tx\n"), "needs two"),
    "three fields in edges": (
        "a.tsv",
        lambda p: p.write_text("x\ty\nx\ty\tz\n"),
        "line 2: 3 fields; an",
    ),
    "one field in edges": ("a.tsv", lambda p: p.write_text("x\ty\nx\n"), "line 2: 1 fields; an"),
    "nameless node": ("a.tsv", lambda p: p.write_text("x\ty\n\ty\n"), "line 2: a node without"),
    "one row": ("a.csv", lambda p: p.write_text("1,2\n"), "at least two"),
    "NaN in text": ("a.csv", lambda p: p.write_text("1,2\n3,nan\n"), "line 2: nan; leave"),
    "gap in text": ("a.csv", lambda p: p.write_text("1,2\n3,\n"), "line 2: '' is not a number"),
    "words alone": ("a.csv", lambda p: p.write_text("a,b,c\nd,e,f\n"), "line 2: 'e' is not"),
    "infinite": ("a.npy", lambda p: save(p, np.array([[0.0, 1], [np.inf, 2]])), "row 1 holds NaN"),
    "pickle": ("a.pt", lambda p: torch.save(torch.ones(3, 3), p), "is a pickle"),
    "unknown kind": ("a.xml", lambda p: p.write_text("<a/>"), "no known kind"),
    "corrupt safetensors": ("a.safetensors", lambda p: p.write_bytes(b"12"), "safetensors"),
    "two matrices": (
        "a.safetensors",
        lambda p: save_file({"a": np.ones((3, 3)), "b": np.ones((3, 3))}, p),
        "choose one with --tensor",
    ),
    "not text": ("a.csv", lambda p: p.write_bytes(b"\xff\xfe\x00"), "UTF-8"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, tmp_path):
    name, write, message = BAD[case]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        probe.load_source(str(tmp_path / name))


def test_missing_sources(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        probe.load_source(str(tmp_path / "gone.npy"))
    with pytest.raises(InputError):
        probe.load_source(str(tmp_path / "gone"))


def test_distances_must_be_square(tmp_path):
    path = save(tmp_path / "a.npy", np.ones((4, 3)))
    with pytest.raises(InputError, match="a distance matrix is square"):
        probe.load_source(path, kind="distances")


def test_a_bad_row_is_found_wherever_it_is(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(70_000, 2))
    vectors[69_990, 1] = np.nan
    path = save(tmp_path / "a.npy", vectors)
    for seed in range(3):
        with pytest.raises(InputError, match="row 69990 holds NaN"):
            probe.load_source(path, sample=20, seed=seed)


def test_text_in_many_forms(tmp_path):
    numbers = NORMAL[:60, :3].round(6)
    expected = np.linalg.norm(numbers[:, None] - numbers, axis=-1)
    rows = [[f"{x}" for x in row] for row in numbers]
    labels = [str(i) for i in range(55)] + ["NA", "C#", "nan", "a,b", ""]
    forms = {
        "plain.csv": "\n".join(",".join(row) for row in rows),
        "semicolon.csv": "\r\n".join("; ".join(row) for row in rows),
        "spaces.txt": "# a remark\n\n" + "\n".join("  ".join(row) for row in rows),
        "labels.csv": "word,x,y,z\n# a remark, with a comma\n"
        + "\n".join(",".join([f'"{a}"', *row]) for a, row in zip(labels, rows, strict=True)),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        source = probe.load_source(str(tmp_path / name))
        np.testing.assert_allclose(source.distances, expected, atol=1e-9)
        assert source.labels == (labels if "labels" in name else [str(i) for i in range(60)])


def test_edges_with_a_header_and_doubles(tmp_path):
    (tmp_path / "e.csv").write_text("parent,child\na,b\nb,a\na,a\nb,c\n")
    source = probe.load_source(str(tmp_path / "e.csv"))
    assert source.labels == ["a", "b", "c"]
    assert source.edges.tolist() == [[0, 1], [1, 2]]


def test_a_samples_paths_may_leave_it(tmp_path):
    graph = nx.grid_2d_graph(20, 20)
    source = probe.load_source(write_edges(tmp_path / "g.tsv", graph), sample=60)
    assert source.graph.shape == (760, 2)
    for i, j in ((0, 59), (3, 40), (10, 11)):
        (a, b), (c, d) = (map(int, source.labels[k][6:-1].split(",_")) for k in (i, j))
        assert source.distances[i, j] == abs(a - c) + abs(b - d)


def test_drawn_nodes_of_a_graph_hang_together(tmp_path):
    source = probe.load_source(write_edges(tmp_path / "t.tsv", nx.balanced_tree(3, 5)))
    generator = torch.Generator().manual_seed(0)
    drawn = figures_module._drawn(source, 60, generator)
    assert 30 < len(drawn) <= 60
    graph = nx.Graph(source.edges.tolist())
    assert nx.is_connected(graph.subgraph(drawn.tolist()))
    assert source.distances[drawn][:, drawn].max() == 10  # down to the leaves


def test_the_picture_of_a_grid_is_a_grid(tmp_path):
    source = probe.load_source(write_edges(tmp_path / "g.tsv", nx.grid_2d_graph(15, 15)))
    drawn = set(figures_module._drawn(source, 60, torch.Generator().manual_seed(0)).tolist())
    edges = sum(a in drawn and b in drawn for a, b in source.edges.tolist())
    assert edges > 1.5 * len(drawn)


def test_more_than_memory(tmp_path, monkeypatch):
    (tmp_path / "big.csv").write_text("1,2\n" * 100)

    class Full:
        available = 10

    monkeypatch.setattr("psutil.virtual_memory", lambda: Full)
    with pytest.raises(InputError, match="are free; save it as"):
        probe.load_source(str(tmp_path / "big.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "edges"])
def test_more_points_than_memory(tmp_path, monkeypatch, kind):
    """Said before anything is allocated: the distances would take terabytes."""

    def allocate(*arguments, **options):
        raise AssertionError("allocated")

    monkeypatch.setattr("torch.cdist", allocate)
    monkeypatch.setattr("geodapt.probe.graphs.graph_distances", allocate)
    if kind == "vectors":
        path = save(tmp_path / "a.npy", np.ones((400_000, 2)))
    else:
        (tmp_path / "a.tsv").write_text("".join(f"n\tn{i}\n" for i in range(400_000)))
        path = str(tmp_path / "a.tsv")
    with pytest.raises(InputError, match=r"to measure 400,00\d points needs about .* smaller"):
        probe.load_source(path, sample=500_000)
