"""Scores over HTTP are those of the same call in Python."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from openai import OpenAI
from PIL import Image

from geodapt.errors import InputError
from geodapt.radial import RadialModel
from geodapt.radial.images import dual_clip
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.bulk import score_file
from geodapt.serve.http.answers import NoText
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import Service
from geodapt.serve.http.starting import start
from geodapt.serve.scoring import Scoring, own_thread
from geodapt.serve.served import Served
from geodapt.serve.text_shelf import TextShelf
from tests.radial.small import CORPUS, save_bert, save_dual
from tests.serve.asking import running
from tests.xcross.conftest import Shelf

HISTORY, ITEMS = ["item number 1 is good", "item number 2"], ["item 3 is bad", "item 4", "item 5"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    shelf.save_base()
    shelf.save_adapters()
    shelf.model().save_pretrained(shelf.folder / "rank")
    labels = ["good", "bad", "neither"]
    classifier = shelf.model(task="classification", labels=labels)
    classifier.save_pretrained(shelf.folder / "classify")
    save_bert(shelf.folder / "encoder")
    return shelf.folder


@pytest.fixture(scope="module")
def service(models):
    store = models / "store"
    names = {name: str(models / folder) for name, folder in (
        ("rank", "rank"), ("classify", "classify"), ("embed", "encoder")
    )}  # fmt: skip
    return start(Served(**names, store=store), ServeSettings())


@pytest.fixture(scope="module")
def scored(service):
    with running(service) as served:
        yield served


def test_embeddings_are_the_encoders_with_their_radius(scored, service):
    body = {"input": CORPUS, "hierarchy": True}
    answer = scored.ask("POST", "/v1/embeddings", body).json
    expected = service.scoring.encoder.embed(CORPUS)
    found = torch.tensor([row["embedding"] for row in answer["data"]])
    assert torch.allclose(found, expected, atol=1e-6)
    index = service.scoring.encoder.index(CORPUS)
    assert [row["radius"] for row in answer["data"]] == pytest.approx(index.radii[0].tolist())
    assert answer["usage"]["prompt_tokens"] >= len(CORPUS)
    coded = scored.ask("POST", "/v1/embeddings", {"input": "bird", "encoding_format": "base64"})
    vector = np.frombuffer(base64.b64decode(coded.json["data"][0]["embedding"]), "<f4")
    assert np.allclose(vector, expected[1], atol=1e-6)
    assert scored.ask("POST", "/v1/embeddings", {"input": "a", "dimensions": 8}).status == 400
    assert scored.ask("POST", "/v1/embeddings", {"input": [1, 2]}).status == 400


def test_openais_client_embeds(scored, service):
    client = OpenAI(base_url=f"http://127.0.0.1:{scored.port}/v1", api_key="none")
    found = client.embeddings.create(model="base", input=["bird", "car"])
    expected = service.scoring.encoder.embed(["bird", "car"])
    assert torch.allclose(torch.tensor([row.embedding for row in found.data]), expected, atol=1e-6)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_ranks_are_xcrosss(scored, service, path):
    scores = service.scoring.ranker.rank(HISTORY, ITEMS)
    order = sorted(range(3), key=lambda i: -scores[i])
    body = {"query": HISTORY, "documents": ITEMS, "top_n": 2, "return_documents": True}
    found = scored.ask("POST", path, body).json["results"]
    assert [row["index"] for row in found] == order[:2]
    assert [row["relevance_score"] for row in found] == pytest.approx(
        [scores[i] for i in order[:2]]
    )
    assert [row["document"]["text"] for row in found] == [ITEMS[i] for i in order[:2]]
    tei = scored.ask("POST", "/rerank", {"query": HISTORY, "texts": ITEMS}).json
    assert [row["index"] for row in tei] == order


def test_coheres_client_reranks(scored, service):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="none", base_url=f"http://127.0.0.1:{scored.port}")
    scores = service.scoring.ranker.rank(HISTORY[:1], ITEMS)
    found = client.rerank(model="base", query=HISTORY[0], documents=ITEMS, top_n=2)
    order = sorted(range(3), key=lambda i: -scores[i])[:2]
    assert [row.index for row in found.results] == order
    assert [row.relevance_score for row in found.results] == pytest.approx(
        [scores[i] for i in order]
    )
    with pytest.raises(cohere.BadRequestError, match="documents"):
        client.rerank(model="base", query=HISTORY[0], documents=[])


def test_a_catalogue_is_stored_by_name_and_outlasts_the_server(scored, service, models):
    put = scored.ask("PUT", "/v1/catalogues/items", {"texts": ITEMS})
    assert put.json == {"name": "items", "texts": 3, "lasting": True}
    body = {"query": HISTORY[0], "candidates_index": "items"}
    found = scored.ask("POST", "/v1/rerank", body).json["results"]
    same = scored.ask("POST", "/v1/rerank", {"query": HISTORY[0], "documents": ITEMS})
    assert found == same.json["results"]
    assert TextShelf(models / "store/catalogues").get("items") == tuple(ITEMS)
    refused = [
        scored.ask("POST", "/v1/rerank", body | {"candidates_index": "none"}),
        scored.ask("PUT", "/v1/catalogues/..", {"texts": ITEMS}),
        scored.ask("PUT", "/v1/catalogues/%2e%2e%2fx", {"texts": ITEMS}),
        scored.ask("DELETE", "/v1/catalogues/none"),
    ]
    assert {answer.status for answer in refused} <= {400, 404, 405}
    assert scored.ask("DELETE", "/v1/catalogues/items").status == 200
    assert TextShelf(models / "store/catalogues").sizes() == {}


def test_servers_that_share_a_store_see_each_others_lists(tmp_path):
    one, other = TextShelf(tmp_path), TextShelf(tmp_path)
    one.put("items", ["a"])
    assert (other.get("items"), other.sizes()) == (("a",), {"items": 1})
    other.put("items", ["b", "c"])
    assert (one.get("items"), one.sizes()) == (("b", "c"), {"items": 2})
    assert one.delete("items")
    assert (other.get("items"), other.delete("items"), other.sizes()) == (None, False, {})
    (tmp_path / "items.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="items"):
        one.get("items")


def test_retrieval_goes_from_general_to_specific(scored, service):
    scored.ask("PUT", "/v1/indexes/things", {"texts": CORPUS})
    encoder = service.scoring.encoder
    expected = encoder.retrieve(["a bird"], encoder.index(CORPUS), 10)[0]
    for where in ({"index": "things"}, {"texts": CORPUS}):
        body = {"queries": "a bird", "steps": 10} | where
        (found,) = scored.ask("POST", "/v1/retrieve", body).json["data"]
        assert [step["text"] for step in found["steps"]] == [step.text for step in expected]
        radii = [step["radius"] for step in found["steps"]]
        assert radii == sorted(radii) == pytest.approx([step.radius for step in expected])


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A server of a CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    service = start(Served(embed=str(save_dual(folder / "clip", "clip"))), ServeSettings())
    with running(service) as served:
        yield served


def coded(kind="PNG", size=(24, 20), colour=(200, 30, 90), frames=1):
    pictures = [Image.new("RGB", size, colour)] + [Image.new("RGB", size)] * (frames - 1)
    written = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(written, kind, **more)
    return base64.b64encode(written.getvalue()).decode()


def test_pictures_are_queries_where_the_encoder_sees(seeing):
    encoder = seeing.service.scoring.encoder
    picture = Image.new("RGB", (24, 20), (200, 30, 90))
    index = encoder.index(CORPUS)
    vectors = dual_clip(encoder.encoder).embed_images([picture])
    (expected,) = encoder.retrieve(vectors, index, 10)
    other = f"data:image/webp;base64,{coded('WEBP', colour=(0, 255, 0))}"
    body = {"images": [coded(), other], "texts": CORPUS, "steps": 10}
    first, second = seeing.ask("POST", "/v1/retrieve", body).json["data"]
    assert [step["text"] for step in first["steps"]] == [step.text for step in expected]
    near = [step["similarity"] for step in first["steps"]]
    assert near == pytest.approx([step.similarity for step in expected], abs=1e-5)
    assert first["query"] is second["query"] is None
    assert second["steps"][0]["similarity"] != pytest.approx(near[0], abs=1e-4)


def test_what_is_no_picture_is_refused(seeing, scored):
    texts = {"texts": CORPUS}
    for images, says in (
        (["%"], "images.0 is not base64"),
        (["aGVsbG8="], "images.0 is none of PNG, JPEG, WEBP"),
        ([coded(), coded("TIFF")], "images.1 is none of"),
        ([coded()[:60] + "=" * (-len(coded()[:60]) % 4)], "cannot be read"),
        ([coded(size=(5000, 5000))], "16,000,000 together"),
        ([coded(size=(2900, 2900))] * 2, "16,000,000 together"),
        ([coded("WEBP", frames=3)], "frames"),
    ):
        answer = seeing.ask("POST", "/v1/retrieve", texts | {"images": images})
        assert (answer.status, says in answer.json["error"]["message"]) == (400, True), answer.json
    both = {"images": [coded()], "queries": "a bird"}
    for body in (both, {}, {"images": []}):
        assert seeing.ask("POST", "/v1/retrieve", texts | body).status == 400
    blind = scored.ask("POST", "/v1/retrieve", texts | {"images": [coded()]})
    assert (blind.status, "texts only" in blind.json["error"]["message"]) == (400, True)


def test_classes_by_a_classifier_and_zero_shot(scored, service):
    texts = ["item number 1 is good", "item 2 is bad"]
    expected = service.scoring.classifier.classify(texts)
    found = scored.ask("POST", "/classify", {"input": texts}).json["data"]
    assert [row["label"] for row in found] == expected
    assert all(sum(row["probs"]) == pytest.approx(1) for row in found)
    one = scored.ask("POST", "/predict", {"inputs": texts[0]}).json
    assert one[0]["label"] == expected[0]
    assert [row["score"] for row in one] == sorted((row["score"] for row in one), reverse=True)
    shot = scored.ask("POST", "/predict", {"inputs": ["bird"], "labels": ["bird", "car"]}).json
    assert shot[0][0]["label"] == "bird"
    assert shot[0][0]["score"] == pytest.approx(1, abs=1e-5)


def test_what_is_not_served_is_said(scored, service, models):
    no_text = scored.ask("POST", "/v1/completions", {"prompt": "a"})
    assert no_text.status == 404
    assert "no language model" in no_text.json["error"]["message"]
    assert scored.ask("GET", "/ready").status == 200
    nothing = Service(
        ServeSettings(),
        NoText(),
        AdapterFolder(None, None),
        None,
        ServerMetrics(NoText().statistics),
    )
    with running(nothing) as bare:
        assert bare.ask("POST", "/v1/embeddings", {"input": "a"}).status == 404
    nothing.scoring = Scoring(own_thread())
    with running(nothing) as bare:
        for path, body in (
            ("/v1/embeddings", {"input": "a"}),
            ("/v1/rerank", {"query": "a", "documents": ["b"]}),
            ("/classify", {"input": "a"}),
        ):
            answer = bare.ask("POST", path, body)
            assert (answer.status, "start the server" in str(answer.json)) == (404, True)
    with pytest.raises(InputError, match="for ranking, not for classification"):
        start(Served(classify=str(models / "rank")), ServeSettings())
    with pytest.raises(InputError, match="name what to serve"):
        start(Served(), ServeSettings())


def test_one_failing_score_fails_alone(scored, service):
    class Broken(RadialModel):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def index(self, texts):
            raise RuntimeError("a bug")

    whole, service.scoring.encoder = service.scoring.encoder, Broken()
    try:
        failed = scored.ask("POST", "/v1/embeddings", {"input": "a"})
    finally:
        service.scoring.encoder = whole
    assert failed.status == 500
    assert "a bug" not in str(failed.json)
    assert scored.ask("POST", "/v1/embeddings", {"input": "a"}).status == 200


def test_a_file_is_scored_in_shards_and_goes_on_after_a_stop(service, tmp_path, monkeypatch):
    scoring, source = service.scoring, tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS))
    whole = tmp_path / "whole"
    assert score_file(source, whole, scoring, "embed", "m", shard=3) == (len(CORPUS), 0)
    parts = sorted(whole.glob("part-*.jsonl"))
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert [len(part.read_text().splitlines()) for part in parts] == [3, 3, 1]
    vectors = torch.tensor([row["embedding"] for row in rows])
    assert torch.allclose(vectors, scoring.encoder.embed(CORPUS), atol=1e-5)

    asked, ask = [], scoring.embedded

    def stopping(texts):
        asked.append(texts)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(texts)

    monkeypatch.setattr(scoring, "embedded", stopping)
    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        score_file(source, again, scoring, "embed", "m", shard=3)
    assert [path.name for path in again.glob("part-*")] == ["part-00000.jsonl"]
    score_file(source, again, scoring, "embed", "m", shard=3)
    assert asked == [CORPUS[:3], CORPUS[3:6], CORPUS[3:6], CORPUS[6:]]
    assert [(again / p.name).read_bytes() for p in parts] == [p.read_bytes() for p in parts]
    with pytest.raises(InputError, match="another job"):
        score_file(source, again, scoring, "embed", "other", shard=3)


def test_ranks_and_classes_of_a_file(service, tmp_path):
    ranks, texts = tmp_path / "ranks.jsonl", tmp_path / "texts.jsonl"
    ranks.write_text(json.dumps({"history": HISTORY, "candidates": ITEMS}) + "\n\n")
    texts.write_text(json.dumps({"text": "item 2 is bad"}))
    assert score_file(ranks, tmp_path / "r", service.scoring, "rank", "m") == (1, 0)
    assert score_file(texts, tmp_path / "c", service.scoring, "classify", "m") == (1, 0)
    (ranked,) = map(json.loads, (tmp_path / "r/part-00000.jsonl").read_text().splitlines())
    (classed,) = map(json.loads, (tmp_path / "c/part-00000.jsonl").read_text().splitlines())
    assert ranked["scores"] == pytest.approx(service.scoring.ranker.rank(HISTORY, ITEMS))
    assert classed["label"] == service.scoring.classifier.classify(["item 2 is bad"])[0]


@pytest.mark.parametrize(
    "line", ["{", '{"text": ""}', '{"text": 1}', '{"text": "a", "b": 1}', "[]"]
)
def test_a_broken_line_is_named_before_anything_is_written(service, tmp_path, line):
    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        score_file(source, tmp_path / "out", service.scoring, "embed", "m")
    assert not (tmp_path / "out").exists()


def test_a_runs_folder_stands_for_the_model_in_it(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Served(base=str(tmp_path / "run")).check()
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (tmp_path / "run" / "results.json").write_text("{}")
    for named in (Served(base=str(tmp_path / "run")), Served(embed=str(tmp_path / "run"))):
        with pytest.raises(InputError, match=r"model' is a folder without config.json"):
            named.check()
    (model / "config.json").write_text("{}")
    Served(base=str(tmp_path / "run"), embed=str(tmp_path / "run")).check()
