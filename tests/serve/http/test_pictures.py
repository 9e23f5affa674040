"""Pictures in requests for vectors, in the forms of Jina and vLLM; and an index that is searched by one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

import acclimate
from acclimate.data.images.pictures import normalise_picture
from acclimate.models.encoder import Encoder
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.projection import ProjectedImages, Projection, ProjectionHead, save_projection
from tests.chat_server import ChatServer
from tests.image_world import encoded, picture, tiny_graph
from tests.serve.http.test_access import FILE as KEYS
from tests.serve.http.test_access import READER, WRITER, key
from tests.serve.http.world import World, adapter_of, copy_run, served, write_run

FILE = encoded(picture(3, 1), "PNG")


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def refused(reply: httpx.Response, status: int, message: str) -> None:
    assert reply.status_code == status, reply.text[:500]
    assert message in reply.json()["error"]["message"] + str(reply.json()["error"].get("fix"))


def add_projection(run: Path, tower: Path, encoder: Encoder) -> ProjectedImages:
    """A random projection into the space of an encoder's documents."""
    torch.manual_seed(0)
    images = ImageEncoder.load(str(tower), device="cpu")
    head = ProjectionHead(images.tower.features, encoder.use.dim, "linear").eval()
    (run / "projection").mkdir()
    tower_facts = (str(tower), images.tower.sha256, images.tower.fingerprint)
    facts = dict(zip(("tower_id", "tower_sha256", "tower_fingerprint"), tower_facts, strict=True))
    save_projection(run / "projection", Projection(head=head, space=encoder.space, **facts))
    return ProjectedImages.open(run / "projection", device="cpu")


@pytest.fixture(scope="module")
def images(world: World, base: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ProjectedImages]:
    """A copy of the run `farm` with a projection, and what that gives."""
    folder = tmp_path_factory.mktemp("pictures")
    run = copy_run(world.farm, folder / "farm")
    return run, add_projection(run, tiny_graph(folder / "tower"), base.with_adapter(adapter_of(base, seed=1)))


@pytest.fixture(scope="module")
def shop(world: World, images: tuple[Path, ProjectedImages]) -> Iterator[httpx.Client]:
    with served(world, images[0]) as client:
        yield client


def asked(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": "farm", **body})


def test_a_picture_has_the_vector_of_the_projection(shop: httpx.Client, images: tuple[Path, ProjectedImages]) -> None:
    plain = normalise_picture(FILE, side=288, max_pixels=10**6).data
    expected = images[1].encode([plain])[0]
    url = f"data:image/png;base64,{in_base64(FILE)}"
    jina = [{"image": in_base64(FILE)}, {"text": "wheat rust"}, {"image": url}]
    reply = asked(shop, input=jina, input_type="document").json()
    vectors = np.array([row["embedding"] for row in reply["data"]])
    np.testing.assert_allclose(vectors[[0, 2]], np.stack([expected, expected]), atol=1e-5)
    alone = asked(shop, input="wheat rust", input_type="document").json()
    np.testing.assert_allclose(vectors[1], alone["data"][0]["embedding"], atol=1e-5)
    assert reply["usage"] == alone["usage"]
    content = [{"type": "image_url", "image_url": {"url": url}}]
    vllm = asked(shop, messages=[{"role": "user", "content": content}], encoding_format="base64").json()
    decoded = np.frombuffer(base64.b64decode(vllm["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(decoded, expected, atol=1e-6)
    text = asked(shop, messages=[{"role": "user", "content": "wheat rust"}], input_type="document").json()
    np.testing.assert_allclose(text["data"][0]["embedding"], alone["data"][0]["embedding"], atol=1e-6)


def test_its_vector_searches_the_index(shop: httpx.Client) -> None:
    reply = asked(shop, input=[{"image": in_base64(FILE)}]).json()
    body = {"vector": reply["data"][0]["embedding"], "space": reply["acclimate"]["space"], "top_k": 3}
    assert len(shop.post("/v1/search", json=body).json()["hits"]) == 3
    assert shop.get("/v1/capabilities").json()["features"]["pictures"] == ["farm"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": [{"image": "https://example.org/a.jpg"}]}, 422, "is a URL"),
        ({"input": [{"image": "not base64!"}]}, 422, "item 0 is no base64"),
        ({"input": [{"text": "a"}, {"image": "data:image/png,abc"}]}, 422, "item 1 is no data URL in base64"),
        ({"input": [{"picture": "abc"}]}, 422, "item 0 is neither"),
        ({"input": [{"image": "abcd", "text": "a"}]}, 422, "item 0 is neither"),
        ({"input": [{"image": in_base64(b"no picture at all")}]}, 422, "item 0: no image"),
        ({"input": [{"image": in_base64(FILE)}] * 65}, 413, "65 pictures"),
        ({"input": [{"image": in_base64(FILE)}], "dimensions": 4}, 400, "dimensions = 4"),
        ({"input": [{"image": in_base64(FILE)}], "model": "base"}, 422, "no pictures are served for the model 'base'"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 422, "messages: the part is neither"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}] * 2}]}, 422, "messages: 2 parts"),
        ({"messages": []}, 422, "messages: 0 parts"),
        ({}, 422, "one of input and messages is needed"),
        ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, 422, "one of input and messages"),
    ],
)
def test_what_is_no_picture_is_refused(body: dict[str, Any], status: int, message: str, shop: httpx.Client) -> None:
    refused(asked(shop, **body), status, message)


def test_a_service_without_a_projection_says_so(client: httpx.Client) -> None:
    refused(asked(client, input=[{"image": in_base64(FILE)}]), 422, "no run is served that has a projection")


def test_a_tower_that_is_gone_and_another_space(world: World, base: Encoder, tmp_path: Path) -> None:
    """The texts are served all the same; vectors of another space never come out."""
    write_run(tmp_path / "gone", base, adapter_of(base, seed=2))
    write_run(tmp_path / "other", base, adapter_of(base, seed=3))
    for name in ("gone", "other"):
        add_projection(tmp_path / name, tiny_graph(tmp_path / f"tower-{name}"), base)
    (tmp_path / "tower-gone" / "tower.onnx").unlink()
    with served(world, tmp_path / "gone", tmp_path / "other") as client:
        assert client.get("/v1/capabilities").json()["features"]["pictures"] == ["other"]
        found = client.post("/v1/embeddings", json={"model": "other", "input": [{"image": in_base64(FILE)}]})
        refused(found, 409, "another space")


@pytest.fixture(scope="module")
def gallery(world: World, base: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A copy of the run `farm` whose index holds six pictures, and these by sha256."""
    folder = tmp_path_factory.mktemp("gallery")
    run = copy_run(world.farm, folder / "farm")
    add_projection(run, tiny_graph(folder / "tower"), base.with_adapter(adapter_of(base, seed=1)))
    (folder / "photos").mkdir()
    for number in range(6):
        (folder / "photos" / f"leaf-{number}.jpg").write_bytes(encoded(picture(number, 1)))
    acclimate.index(run, folder / "photos", images=True, device="cpu")
    return run, {path.name: path.read_bytes() for path in (run / "pictures").rglob("*") if path.is_file()}


def test_a_picture_of_the_index_is_served(world: World, gallery: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    run, pictures = gallery
    (tmp_path / "keys.toml").write_text(KEYS)
    with served(world, run, keys=str(tmp_path / "keys.toml")) as client:
        sha256, data = next(iter(pictures.items()))
        assert client.get(f"/v1/pictures/{sha256}").status_code == 401
        client.headers = key(READER)
        reply = client.get(f"/v1/pictures/{sha256}", params={"index": "farm"})
        assert (reply.status_code, reply.content, reply.headers["content-type"]) == (200, data, "image/jpeg")
        assert reply.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert reply.headers["x-content-type-options"] == "nosniff"
        again = client.get(f"/v1/pictures/{sha256}", headers={"if-none-match": reply.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        refused(client.get(f"/v1/pictures/{'0' * 64}"), 404, f"no picture of the index farm is {'0' * 64}")
        refused(client.get(f"/v1/pictures/{sha256}", params={"index": "other"}), 404, "no index is called")
        for wrong in ("..%2f..%2fsettings", "%2e%2e", sha256.upper(), sha256[:-1], sha256 + "0", sha256 + "%0a", "x"):
            assert client.get(f"/v1/pictures/{wrong}").status_code in (404, 422), wrong
        assert 'route="/v1/pictures/{sha256}"' in client.get("/metrics").text
        (index,) = client.get("/v1/capabilities").json()["indexes"]
        assert (index["pictures"], index["documents"]) == (6, 36)
        assert [one["name"] for one in index["fields"]] == ["year"]  # fields of texts


def test_filters_tell_texts_from_pictures(world: World, gallery: tuple[Path, dict[str, bytes]]) -> None:
    run, pictures = gallery
    with served(world, run) as client:
        vector = asked(client, input=[{"image": in_base64(FILE)}]).json()["data"][0]["embedding"]
        body = {"vector": vector, "top_k": 36, "filter": "exists(picture) and exists(projection)"}
        hits = client.post("/v1/search", json=body).json()["hits"]
        assert {hit["metadata"]["picture"] for hit in hits} == set(pictures)
        assert hits[0]["text"] == "leaf 3"
        texts = client.post(
            "/v1/search", json={**body, "filter": "not (exists(picture) and exists(projection))"}
        ).json()
        assert len(texts["hits"]) == 30 and not any("picture" in hit["metadata"] for hit in texts["hits"])


def test_no_answer_cites_a_picture(world: World, gallery: tuple[Path, dict[str, bytes]]) -> None:
    with ChatServer(lambda _: "It is [1].") as chat, served(world, gallery[0], llm=chat.url, results_mb=0) as client:
        client.post("/v1/answer", json={"query": "leaf 3", "top_k": 36})
        assert "wheat" in str(chat.requests[0]) and str(chat.requests[0]).count("leaf 3") == 1  # the question


def test_a_picture_is_not_written_as_a_text_and_deleted_with_its_file(
    world: World, gallery: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    run, pictures = copy_run(gallery[0], tmp_path / "farm"), gallery[1]
    first, second, *_ = sorted(pictures)
    place = run / "pictures" / first[:2] / first
    with served(world, run) as client:
        document = client.get(f"/v1/documents/picture:{first}").json()
        for metadata in (document["metadata"], {}):
            row = {"id": document["id"], "text": document["text"], "metadata": metadata}
            refused(client.put("/v1/documents", json={"documents": [row]}), 422, "its id is that of a picture")
        reply = client.request("DELETE", "/v1/documents", json={"ids": [document["id"], "picture:../../x"]})
        assert reply.json()["deleted"] == 1 and not place.exists()
        refused(client.get(f"/v1/pictures/{first}"), 404, "no picture of the index")
        (run / "pictures" / second[:2] / second).unlink()
        refused(client.get(f"/v1/pictures/{second}"), 404, "acclimate index RUN --images")


def test_pictures_are_written_kept_and_found(
    world: World, images: tuple[Path, ProjectedImages], tmp_path: Path
) -> None:
    run = copy_run(images[0], tmp_path / "farm")
    (tmp_path / "keys.toml").write_text(KEYS)
    given = [
        {"image": in_base64(FILE), "text": "a striped leaf", "class": "leaf", "file": "leaf.png"},
        {"image": f"data:image/jpeg;base64,{in_base64(encoded(picture(1, 1)))}", "text": "another"},
    ]
    body = {"pictures": given}
    with served(world, run, keys=str(tmp_path / "keys.toml")) as client:
        assert client.put("/v1/pictures", json=body, headers=key(READER)).status_code == 403
        client.headers = key(WRITER)
        reply = client.put("/v1/pictures", json=body).json()
        counts = [reply[name] for name in ("documents", "encoded", "relabelled", "unchanged")]
        assert counts == [2, 2, 0, 0] and reply["index"] == "farm"
        first = client.get(f"/v1/documents/{reply['ids'][0]}").json()
        plain = normalise_picture(FILE, side=288, max_pixels=64_000_000).data
        assert client.get(f"/v1/pictures/{first['metadata']['picture']}").content == plain
        projection = first["metadata"].pop("projection")
        sha256 = reply["ids"][0].removeprefix("picture:")
        assert first["metadata"] == {"picture": sha256, "file": "leaf.png", "class": "leaf"}
        assert first["text"] == "a striped leaf" and len(projection) == 12
        vector = asked(client, input=[{"image": in_base64(FILE)}]).json()["data"][0]["embedding"]
        search = {"vector": vector, "top_k": 1, "filter": "exists(picture) and exists(projection)"}
        (hit,) = client.post("/v1/search", json=search).json()["hits"]
        assert hit["id"] == reply["ids"][0] and hit["score"] > 0.999
        given[1]["text"] = "a red one"
        again = client.put("/v1/pictures", json={"pictures": [*given, given[0]]}).json()
        assert [again[name] for name in ("documents", "encoded", "relabelled", "unchanged")] == [2, 0, 1, 1]
        assert again["ids"] == [*reply["ids"], reply["ids"][0]]
        assert client.request("DELETE", "/v1/documents", json={"ids": reply["ids"]}).json()["deleted"] == 2
        assert not [path for path in (run / "pictures").rglob("*") if path.is_file()]
    # By the command, what the service has written is what it would write itself.
    (tmp_path / "leaf.png").write_bytes(FILE)
    acclimate.index(run, tmp_path / "leaf.png", images=True, device="cpu")
    assert (run / "pictures" / sha256[:2] / sha256).read_bytes() == plain


@pytest.mark.parametrize(
    ("pictures", "status", "message"),
    [
        ([{"image": "https://example.org/a.jpg", "text": "a"}], 422, "is a URL"),
        ([{"image": in_base64(b"no picture at all"), "text": "a"}], 422, "item 0: no image"),
        ([{"image": in_base64(FILE), "text": " "}], 422, "it has no text"),
        ([{"image": in_base64(FILE), "text": "a", "file": "\0"}], 422, "picture 0:"),
        ([{"image": in_base64(FILE)}], 422, "text"),
        ([{"image": in_base64(FILE), "text": "a"}] * 65, 413, "65 pictures"),
        ([], 422, "pictures"),
    ],
)
def test_what_is_no_picture_is_not_written(
    pictures: list[dict[str, str]], status: int, message: str, shop: httpx.Client
) -> None:
    refused(shop.put("/v1/pictures", json={"pictures": pictures}), status, message)


def test_pictures_need_a_projection_of_the_index_s_run(client: httpx.Client) -> None:
    body = {"pictures": [{"image": in_base64(FILE), "text": "a"}], "index": "farm"}
    refused(client.put("/v1/pictures", json=body), 422, "has no projection of pictures")
