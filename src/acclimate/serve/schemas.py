"""What clients send. What others have defined (OpenAI, Cohere, Jina, TEI) may have more fields, which are not read; of
our own routes an unknown field is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from acclimate.feedback.records import MAX_QUERY_CHARACTERS
from acclimate.retrieval.index.records import MAX_ID_BYTES, MAX_TOP_K, Mode
from acclimate.serve.image_input import GivenPicture, input_of_messages, item_of

MAX_NAME = 256
_TEXT = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_ITEM = {
    "anyOf": [
        {"type": "object", "properties": {name: _TEXT}, "required": [name], "additionalProperties": False}
        for name in ("text", "image")
    ]
}
_INPUT = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1},
        {"type": "array", "items": _ITEM, "minItems": 1},
    ],
    "title": "Input",
}


def _input(value: Any) -> list[str] | list[list[int]] | list[str | GivenPicture]:
    """Read what OpenAI's clients send as `input`: one or several texts, or token ids; the first wrong item is named.

    Or what Jina's send: objects with a text or a picture each.
    """
    if isinstance(value, str):
        return [_text(value, None)]
    if not isinstance(value, list) or not value:
        raise PydanticCustomError("input", "a text, or a list of one or more texts")
    if isinstance(value[0], str):
        return [_text(item, place) for place, item in enumerate(value)]
    if isinstance(value[0], list):
        return [_ids(item) for item in value]
    if isinstance(value[0], dict):
        return [item_of(item, place) for place, item in enumerate(value)]
    return [_ids(value)]


def _text(value: Any, place: int | None) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("input", "item {place} is no text, as the first one is", {"place": place})
    return value


def _ids(value: Any) -> list[int]:
    if not isinstance(value, list) or not value or not all(type(item) is int and item >= 0 for item in value):
        raise PydanticCustomError("input", "texts, or lists of token ids")
    return value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _document_text(value: Any) -> str:
    """Read a document of a rerank request: a text, or an object that has one."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise PydanticCustomError("document", 'a text, or an object with one: {"text": "…"}')
    return text


Input: TypeAlias = Annotated[Any, PlainValidator(_input), WithJsonSchema(_INPUT)]
Messages: TypeAlias = Annotated[
    Any,
    PlainValidator(input_of_messages),
    WithJsonSchema({"type": "array", "items": {"type": "object"}, "minItems": 1, "title": "Messages"}),
]
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}], "title": "Inputs"}
Texts: TypeAlias = Annotated[
    list[str], FailFast(), Field(min_length=1), BeforeValidator(_one_or_more), WithJsonSchema(_TEXTS)
]
_DOCUMENT = {"anyOf": [_TEXT, {"type": "object", "properties": {"text": _TEXT}, "required": ["text"]}]}
DocumentText: TypeAlias = Annotated[str, PlainValidator(_document_text), WithJsonSchema(_DOCUMENT)]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]
Mixture: TypeAlias = Annotated[dict[Name, Number], Field(min_length=1, max_length=64)]


class _Theirs(BaseModel):
    """The base of requests that others have defined."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Ours(BaseModel):
    """The base of requests of our own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EmbeddingsRequest(_Theirs):
    """`POST /v1/embeddings`, as OpenAI has it; pictures as Jina (`input`) and vLLM (`messages`) have them."""

    input: Input = Field(None, description="Texts, token ids, or objects with a text or a picture each.")
    messages: Messages = Field(None, description="One picture or text, as vLLM has it; in place of input.")
    model: Name = Field(description="NAME, base, base:NAME, NAME@query or NAME@document: see /v1/models.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, le=1_000_000, description="Fewer than all: only of Matryoshka models.")
    user: str | None = Field(None, description="Not read.")
    input_type: str | None = Field(None, max_length=MAX_NAME, description="query or document.")
    prompt_name: str | None = Field(None, max_length=MAX_NAME, description="query, document, or a task of the model.")


class RerankRequest(_Theirs):
    """`POST /v1/rerank` and `/v2/rerank`, as Cohere and Jina have it."""

    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[DocumentText], FailFast(), Field(min_length=1)]
    model: Name | None = Field(None, description="The reranker's id, or reranker; there is one.")
    top_n: int | None = Field(None, ge=1, le=1_000_000)
    return_documents: bool | None = Field(None, description="Jina's default is true, Cohere's and ours false.")


class TeiEmbedRequest(_Theirs):
    """`POST /embed`, as text-embeddings-inference has it."""

    inputs: Texts
    model: Name | None = Field(None, description="Ours: which model; not needed where one is served.")
    normalize: Literal[True] = Field(True, description="Vectors have the length 1 here.")
    truncate: Literal[True] | None = Field(None, description="Longer texts are cut here.")
    truncation_direction: Literal["right", "Right"] = "right"
    prompt_name: str | None = Field(None, max_length=MAX_NAME)
    dimensions: int | None = Field(None, ge=1, le=1_000_000)


class TeiRerankRequest(_Theirs):
    """`POST /rerank`, as text-embeddings-inference has it."""

    query: Annotated[str, Field(min_length=1)]
    texts: Annotated[list[str], FailFast(), Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: Literal[True] | None = None


class SearchRequest(_Ours):
    """`POST /v1/search`."""

    query: str | None = Field(None, min_length=1, description="What to search for; not needed beside a vector.")
    vector: Annotated[list[Number], Field(min_length=1, max_length=65_536)] | None = Field(
        None, description="A unit vector of the index's space, in place of the query's own."
    )
    space: str | None = Field(
        None, max_length=64, description="The space of the vector, as /v1/models gives it: checked where it is given."
    )
    index: Name | None = Field(None, description="The run whose index is searched; not needed where there is one.")
    adapter: Name | Mixture | None = Field(
        None,
        description="What encodes the query: a model's name, or several with weights; auto, mix or fuse let the "
        "service choose; the run's own if not given.",
    )
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    mode: Mode | None = Field(None, description="hybrid where there is a text and a vector or model, which is usual.")
    filter: dict[str, Any] | str | None = Field(
        None, description='On metadata: the JSON form, or text such as: year >= 2020 and crop in ("rice", "maize").'
    )
    rerank: int | None = Field(None, ge=1, le=MAX_TOP_K, description="Let the reranker put so many first in order.")
    explain: bool = Field(
        False, description="Say by which rank and score each hit came about, and why an adapter was chosen."
    )
    highlight: bool = Field(
        False,
        description="Say where each text has words of the query, as the index counts words: places in characters.",
    )
    cache: bool = Field(True, description="Whether the reply may be one that was kept.")
    impression: bool = Field(
        True,
        description="Whether the reply counts as shown to a searcher, for feedback; false for a search beside it, such "
        "as a comparison of two models: then neighbours are not swapped either.",
    )


class AnswerRequest(_Ours):
    """`POST /v1/answer`."""

    query: Annotated[str, Field(min_length=1)] = Field(description="The question, in any language.")
    model: Name | None = Field(
        None,
        description="What encodes the question: a model's name; auto, mix or fuse let the service choose; the run's "
        "own if not given.",
    )
    index: Name | None = Field(None, description="The run whose index is searched; not needed where there is one.")
    top_k: int = Field(8, ge=1, le=100, description="How many documents the language model may read.")
    filter: dict[str, Any] | str | None = Field(None, description="On metadata, as a search has it.")
    rerank: int | None = Field(None, ge=1, le=MAX_TOP_K, description="Let the reranker put so many first in order.")
    stream: bool = Field(False, description="Send the answer while it is written, as server-sent events.")
    cache: bool = Field(True, description="Whether the reply may be one that was kept.")


class DocumentIn(_Ours):
    """A document to write."""

    id: Id
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)


class PutDocumentsRequest(_Ours):
    """`PUT /v1/documents`."""

    documents: Annotated[list[DocumentIn], FailFast(), Field(min_length=1)]
    index: Name | None = None


class PictureIn(_Ours):
    """A picture to write: its id is that of what is kept of it."""

    image: str = Field(description="In base64, or a data: URL.")
    text: Annotated[str, Field(min_length=1)] = Field(description="What it is called: for people, and search by words.")
    file: str = Field("", description="What its file is called.")
    group: str | None = Field(None, alias="class", description="The class that it belongs to.")


class PutPicturesRequest(_Ours):
    """`PUT /v1/pictures`."""

    pictures: Annotated[list[PictureIn], FailFast(), Field(min_length=1)]
    index: Name | None = None


class DeleteDocumentsRequest(_Ours):
    """`DELETE /v1/documents`."""

    ids: Annotated[list[Id], FailFast(), Field(min_length=1)]
    index: Name | None = None


class MarkIn(_Ours):
    """What a searcher made of a document."""

    impression_id: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="As the search's reply has it."
    )
    query: str | None = Field(None, max_length=MAX_QUERY_CHARACTERS, description="Not needed beside an impression.")
    id: Id = Field(description="Of the document.")
    mark: Annotated[str, Field(max_length=64)] = Field(description="relevant, not_relevant, click, or another name.")
    user: str | None = Field(None, max_length=MAX_NAME, description="Who; all that name nobody count as one user.")


class FeedbackRequest(_Ours):
    """`POST /v1/feedback`."""

    marks: Annotated[list[MarkIn], FailFast(), Field(min_length=1)]
    index: Name | None = Field(None, description="The run; not needed where there is one, or beside impressions.")


class LoadAdapterRequest(_Ours):
    """`POST /v1/adapters`."""

    name: Name
    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(description="Below --adapter-root.")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="What its content hash has to be; another one is refused."
    )


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    code: str
    field: str | None
    param: str | None = Field(description="The same as field, by OpenAI's name.")
    fix: str | None = Field(description="What to do.")
    request_id: str


class ErrorReply(BaseModel):
    """Every error."""

    error: ErrorDetail
