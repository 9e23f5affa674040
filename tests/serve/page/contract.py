"""A small real server that speaks the contract of the page: its files as they are, and the routes that it calls.

What it answers is written here: two rankings of a dozen documents, English and Chinese, an answer that is streamed, a
route, marks that are stored or refused. So the page is tested in all its parts with what they have to show.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from acclimate.core.analyser import Analyser
from acclimate.core.highlights import highlights
from acclimate.serve.routes import page
from tests.image_world import encoded, picture

ANALYSER = Analyser("english", stop_words=True, stemming=True)
KEY = "reader-" + "k" * 16
LONG = " Each field is looked at twice before the last leaf opens, and once more after rain." * 6
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sowing": (
        "Winter wheat is sown from late September to mid October, so that it tillers before frost.",
        {"crop": "wheat", "year": 2021},
    ),
    "rust": ("Yellow rust of wheat spreads in cool wet springs." + LONG, {"crop": "wheat", "year": 2019}),
    "drill": ("A drill sets seed two to four centimetres deep.", {"crop": ["wheat", "barley"], "year": 2022}),
    "barley": ("Winter barley goes in a fortnight before wheat does.", {"crop": "barley", "year": 2020}),
    "rate": (
        "Later sowing needs a higher seed rate: fewer plants survive the winter.",
        {"crop": "wheat", "year": 2023},
    ),
    "zh-sow": ("冬小麦一般在九月下旬至十月中旬播种，以便在霜冻前分蘖。", {"crop": "wheat", "year": 2021}),
    "zh-rust": ("小麦条锈病在低温多雨的春季容易流行，应及早防治。", {"crop": "wheat", "year": 2018}),
    "till": (
        "<b>Tillers</b> & side shoots form while the soil stays above five degrees.",
        {"crop": "wheat", "year": 2017},
    ),
    "rice": ("Rice wants standing water for most of its life.", {"crop": "rice", "year": 2020}),
    "lime": ("Lime heavy land before the first crop of the rotation.", {"year": 2016}),
    "hops": ("Hops climb six metres in a good June.", {"crop": "hops", "year": 2015}),
    "oats": ("Oats stand a sour soil better than wheat.", {"crop": "oats", "year": 2014}),
}
ADAPTED = ["sowing", "rate", "drill", "zh-sow", "barley", "till", "rust", "zh-rust", "lime", "oats"]
BASE = ["rust", "sowing", "oats", "barley", "hops", "drill", "rice", "zh-rust", "till", "rate", "lime", "zh-sow"]
PICTURE = [0.6, 0.8]
"""The vector of every picture."""
ARE_PICTURES = "exists(picture) and exists(projection)"
CAPTIONS = ["yellow rust on a leaf of winter wheat", "小麦条锈病", "<b>drill</b>"]
GONE = 7
"""The number of a picture whose file is gone."""
ANSWER = "Sow winter wheat from late September to mid October [1]. Later sowing needs more seed [2]."


@dataclass
class Contract:
    """What a test decides, and what it finds out."""

    key: str | None = None
    """The only one that is known; None: none is needed."""
    features: dict[str, Any] = field(
        default_factory=lambda: {
            "rerank": "tiny-reranker",
            "answer": "a-model",
            "route": ["auto", "mix", "fuse"],
            "feedback": True,
        }
    )
    models: list[str] = field(default_factory=lambda: ["base", "farm"])
    """Whose queries may search the index."""
    loading: int = 0
    """So many requests find the models being loaded."""
    answered: bool = True
    refuses_marks: bool = False
    slow_s: float = 0.0
    """Between two parts of an answer."""
    url: str = ""
    searches: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    indexed: int = 0
    """Pictures that the index holds."""
    fetched: list[str] = field(default_factory=list)
    """Which of them were asked for."""
    strips: list[dict[str, Any]] = field(default_factory=list)
    """Searches for pictures."""


@contextmanager
def speaking(contract: Contract) -> Iterator[Contract]:
    """The server in a thread, while the context is open."""
    server = uvicorn.Server(uvicorn.Config(_app(contract), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    contract.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    try:
        yield contract
    finally:
        server.should_exit = True
        thread.join(30)


def _app(contract: Contract) -> FastAPI:
    app = FastAPI()
    app.include_router(page.router)

    @app.middleware("http")
    async def guard(request: Request, go_on: Any) -> Response:
        if request.url.path.startswith("/v1/"):
            if contract.key is not None and request.headers.get("authorization") != f"Bearer {contract.key}":
                return _error(401, "the request's key is not known here")
            if contract.loading:
                contract.loading -= 1
                return _error(503, "the models are being loaded")
        reply: Response = await go_on(request)
        return reply

    @app.get("/v1/capabilities")
    def capabilities() -> dict[str, Any]:
        return _capabilities(contract)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in ("base", "farm")]}

    @app.post("/v1/search")
    def search(body: dict[str, Any]) -> Response:
        if body.get("filter", "").startswith(ARE_PICTURES):
            contract.strips.append(body)
            return JSONResponse({"hits": [_picture(number) for number in range(contract.indexed)][: body["top_k"]]})
        contract.searches.append(body)
        return _search(body)

    @app.get("/v1/pictures/{sha256}")
    def one_picture(sha256: str, index: str) -> Response:
        contract.fetched.append(f"{index}/{sha256}")
        number = int(sha256, 16)
        if number == GONE:
            return _error(404, "the file of the picture is gone")
        return Response(encoded(picture(number, 1, side=160)), media_type="image/jpeg")

    @app.post("/v1/embeddings")
    def embeddings(body: dict[str, Any]) -> dict[str, Any]:
        if isinstance(body["input"][0], dict):
            contract.pictures.append(body)
            return {"data": [{"embedding": PICTURE}], "acclimate": {"space": "5" * 64}}
        return {"data": [{"embedding": _vector(text)} for text in body["input"]]}

    @app.post("/v1/answer")
    def answer(body: dict[str, Any]) -> Response:
        contract.answers.append(body)
        return StreamingResponse(_answer(contract), media_type="text/event-stream")

    @app.post("/v1/feedback")
    def feedback(body: dict[str, Any]) -> dict[str, Any]:
        if contract.refuses_marks:
            return {"stored": 0, "refused": [{"index": 0, "reason": "no such impression"}]}
        contract.marks.extend(body["marks"])
        return {"stored": len(body["marks"]), "refused": []}

    return app


def _capabilities(contract: Contract) -> dict[str, Any]:
    index = {
        "name": "farm",
        "model": "farm",
        "task": None,
        "documents": len(TEXTS) + contract.indexed,
        "pictures": contract.indexed,
        "backend": "local",
        "space": "5" * 64,
        "epoch": 7,
        "bytes": 123_456,
        "language": "english",
        "fields": [
            {"name": "crop", "kind": "text", "documents": 11, "values": ["wheat", "barley", "rice", "hops", "oats"]},
            {"name": "year", "kind": "number", "documents": 12, "values": [], "least": 2014.0, "most": 2023.0},
        ],
        "models": contract.models,
        "problem": None,
    }
    caches = {"embeddings": {"entries": 12, "bytes": 22_000, "hits": 30, "misses": 10}}
    return {
        "version": "0.1.0",
        "base": "all-MiniLM-L6-v2",
        "features": contract.features,
        "indexes": [index],
        "caches": caches,
    }


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "input_type": None,
        "parent": None if name == "base" else "all-MiniLM-L6-v2",
        "sides": "query",
        "dimensions": 384,
        "sha256": "ab" * 32,
        "space": {"digest": "5" * 64},
    }


def _search(body: dict[str, Any]) -> Response:
    if "bad" in body.get("filter", ""):
        return _error(422, "the filter cannot be read at character 3", fix="Write: year >= 2020")
    adapter = body.get("adapter", "farm")
    order = [] if body.get("query") == "nothing" else BASE if adapter == "base" else ADAPTED
    order = [one for one in order if "wheat" not in body.get("filter", "") or "wheat" in TEXTS[one][1].get("crop", "")]
    hits = []
    for rank, name in enumerate(order[: body["top_k"]], 1):
        text, metadata = TEXTS[name]
        ways = {"dense": {"rank": rank, "score": 0.5}, "lexical": {"rank": rank + 1, "score": 3.0}}
        row = {"id": name, "text": text, "metadata": metadata, "score": 1 / rank}
        row["explanation"] = {"hybrid": {"rank": rank, "score": 1 / rank}, **ways}
        spans = {"highlights": highlights(text, body["query"], ANALYSER)} if body.get("highlight") else {}
        hits.append({**row, **spans})
    reply: dict[str, Any] = {
        "query": body.get("query"),
        "mode": body["mode"],
        "index": "farm",
        "impression_id": f"i-{adapter}" if body.get("impression", True) else None,
    }
    if adapter in ("auto", "mix", "fuse"):
        weights = {"farm": 0.82, "bank": 0.18}
        reply["route"] = {
            "mode": adapter,
            "weights": weights,
            "distances": {"farm": 0.21, "bank": 0.64},
            "reason": "farm is nearest",
        }
    fusion = {"constant": 60.0, "dense_weight": 1.0, "lexical_weight": 1.0, "depth": 100}
    return JSONResponse({**reply, "acclimate": {"model": adapter}, "fusion": fusion, "hits": hits})


def _picture(number: int) -> dict[str, Any]:
    sha256 = f"{number:064x}"
    folder = "/srv/photos/of/wheat" if number == 1 else "field"
    file = f"{folder}/{number}-taken-in-the-second-week-of-may.jpg"
    metadata = {"picture": sha256, "file": file, "projection": "ab" * 6}
    return {"id": f"picture:{sha256}", "text": CAPTIONS[number % 3], "metadata": metadata, "score": 0.5}


def _vector(text: str) -> str:
    """Unit vectors of two dimensions in which a query is nearest to the base's first document."""
    place = next((BASE.index(name) for name, (known, _) in TEXTS.items() if known == text), -1) + 1
    vector = np.array([np.cos(place / 20), np.sin(place / 20)], np.float32)
    return base64.b64encode(vector.tobytes()).decode()


def _answer(contract: Contract) -> Iterator[str]:
    for word in ANSWER.split(" "):
        time.sleep(contract.slow_s)
        yield f"data: {json.dumps({'delta': word + ' '})}\n\n"
    citations = [
        {"id": "sowing", "number": 1, "text": TEXTS["sowing"][0]},
        {"id": "manual", "number": 2, "text": "More seed."},
    ]
    done = {
        "answer": ANSWER if contract.answered else "",
        "answered": contract.answered,
        "citations": citations if contract.answered else [],
        "struck": 1,
        "usage": {"prompt_tokens": 812, "completion_tokens": 24},
        "model": "a-model",
    }
    yield f"data: {json.dumps({'done': done})}\n\n"


def _error(status: int, message: str, fix: str | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "field": None, "fix": fix}}, status)
