"""Definitions of relevance over a collection: keys by hand, what is held out, a library written and read again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acclimate.configs import PrepareConfig
from acclimate.data.collections import Collection, collect
from acclimate.data.definitions import attribute_keys, families
from acclimate.data.descriptions import ASKED, ATTRIBUTES, WORDINGS, Language, described, unknown_descriptions
from acclimate.data.readers import read_source
from acclimate.data.relevance import ABSENT
from acclimate.data.task_library import VERSION, group_definitions, read_library, write_library
from acclimate.errors import DataError, StorageError

THINGS = ("passport", "card", "loan", "cheque", "salary", "pension", "mortgage", "receipt")
ASKING = ("how", "where", "when", "why", "can", "does")
ENDINGS = ("today", "online", "abroad", "tomorrow")


def write_corpus(
    folder: Path,
    name: str,
    count: int = 600,
    *,
    asking: tuple[str, ...] = ASKING,
    things: tuple[str, ...] = THINGS,
    endings: tuple[str, ...] = ENDINGS,
) -> Path:
    """Queries of a question word, a thing and an ending; each answered by a document about the thing."""
    generator, path = np.random.default_rng(3), folder / f"{name}.jsonl"
    rows = []
    for number in range(count):
        ask, thing, end = (str(generator.choice(words)) for words in (asking, things, endings))
        filler = " ".join(["really"] * int(generator.integers(1, 9)))
        query = f"{ask} do i get {filler} number{number} about the {thing} {end}"
        document = f"{generator.choice(asking)} {filler} answer{number} for every {thing} {generator.choice(endings)}"
        rows.append(json.dumps({"query": query, "response": document}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def with_column(path: Path, column: str, value: Callable[[int], str] = lambda row: f"module {row % 12}") -> Path:
    """The same rows with a column more, by the row's number: one of twelve modules, if not said otherwise."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps(row | {column: value(number)}) for number, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def collection(tmp_path: Path, limit: int | None = None) -> Collection:
    path = write_corpus(tmp_path, "bank")
    return collect("bank", read_source(str(path), PrepareConfig()), limit, 0)


def test_keys_by_hand() -> None:
    texts = ["find the card now", "find the loan now", "list a card"] * 6 + ["a rare word", ""]
    keys = attribute_keys(texts)
    assert keys["opening"][0] == keys["opening"][1] != keys["opening"][2]
    assert keys["ending"][0] == keys["ending"][1] != keys["ending"][2]
    assert keys["opening"][18] == keys["opening"][19] == ABSENT  # too few texts begin so
    assert keys["length"][0] == keys["length"][1] > keys["length"][19]
    assert (keys["entity"] == ABSENT).all()  # in so few texts every frequent word is a common one


def test_texts_that_answer_each_other_are_on_one_side(tmp_path: Path) -> None:
    made = collection(tmp_path, 300)
    assert len(made.queries) == len(made.documents) == 300
    sides = {}
    for answers, test in ((made.query_answer_N, made.query_test_N), (made.document_answer_M, made.document_test_M)):
        for answer, is_test in zip(answers.tolist(), test.tolist(), strict=True):
            if answer != ABSENT:
                assert sides.setdefault(answer, is_test) == is_test
    assert 0.2 < made.query_test_N.mean() < 0.4


@pytest.mark.parametrize("language", WORDINGS)
def test_a_description_names_all_attributes(language: Language) -> None:
    wordings, phrases = described(("entity", "length"), language), WORDINGS[language].phrases
    assert len(set(wordings)) == len(wordings) == 8
    for wording in wordings:
        assert any(phrase in wording for phrase in phrases["entity"])
        assert any(phrase in wording for phrase in phrases["length"])


def test_languages_have_as_many_words_of_each_kind() -> None:
    english, chinese = WORDINGS["en"], WORDINGS["zh"]
    assert tuple(english.phrases) == tuple(chinese.phrases) == ATTRIBUTES
    for kind in ("templates", "domain", "unknown"):
        one, other = getattr(english, kind), getattr(chinese, kind)
        assert len(one) == len(other) == len(set(one)) == len(set(other)), kind
    both = unknown_descriptions(("en", "zh"))
    assert len(both) == len(set(both)) == 2 * len(unknown_descriptions(("zh",))) == 2 * 30 * 6


def test_descriptions_in_two_languages_are_trained_with_and_the_first_is_asked_in(tmp_path: Path) -> None:
    made = collection(tmp_path)
    themes = [number % 3 for number in range(len(made.queries) + len(made.documents))]
    found = families(made, themes, [], 0, domains=2, languages=("zh", "en"))
    facts = group_definitions(found, new=[], far=[], unseen=[])
    (tmp_path / "library").mkdir()
    write_library(tmp_path / "library", found, facts)
    library = read_library(tmp_path / "library")
    assert library.languages == library.only([0]).languages == ("zh", "en")
    place = next(number for number, one in enumerate(facts) if one.definition == "opening+length")
    wordings = {language: described(("opening", "length"), language) for language in ("zh", "en")}
    assert library.train.tasks[place].descriptions == (*wordings["zh"][:-ASKED], *wordings["en"][:-ASKED])
    assert library.test.tasks[place].descriptions == wordings["zh"][-ASKED:]
    domain = next(definition for family in found for definition in family.definitions if "domain" in definition.name)
    assert [len(texts) for texts in domain.descriptions.values()] == [2, 2] and domain.asked[0].startswith("有关")


def test_a_library_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = collection(tmp_path)
    count = len(made.queries) + len(made.documents)
    found = families(
        made, [number % 3 for number in range(count)], [number % 7 for number in range(count)], 0, domains=2
    )
    names = {definition.name for family in found for definition in family.definitions}
    assert {"opening", "length", "ending", "opening+length", "theme", "topic"} <= names
    assert "theme+topic" not in names and not any("answer+" in name for name in names)
    facts = group_definitions(found, new=["opening+length"], far=["ending"], unseen=[])
    folder = tmp_path / "library"
    folder.mkdir()
    write_library(folder, found, facts)
    library = read_library(folder)
    assert library.facts == tuple(facts)
    assert len(library.train.tasks) == len(library.test.tasks) == len(facts)
    assert {library.facts[number].definition for number in library.numbers("new-definition")} == {"opening+length"}
    assert all("ending" in library.facts[number].definition for number in library.numbers("new-attribute"))
    assert not set(library.train.queries) & set(library.test.queries)
    place = next(
        number for number, one in enumerate(facts) if one.definition == "opening" and "to documents" in one.name
    )
    for part in (library.train, library.test):
        task = part.tasks[place]
        query = int(task.usable[0])
        ranked = task.ranked()
        own = [part.documents[number] for number in ranked[task.relevant([query], ranked)[0]]]
        assert own and all(text.split()[0] == part.queries[query].split()[0] for text in own)
    assert not set(library.train.tasks[place].descriptions) & set(library.test.tasks[place].descriptions)

    part = library.only([place])
    task, whole = part.test.tasks[0], library.test.tasks[place]
    assert [part.test.queries[number] for number in task.usable] == [
        library.test.queries[number] for number in whole.usable
    ]
    assert len(part.test.documents) == len(whole.ranked()) < len(library.test.documents)


def test_a_definition_can_be_held_out_of_one_collection_alone(tmp_path: Path) -> None:
    made = collection(tmp_path)
    found = families(made, [], [], 0)
    other = [replace(family, name=f"other, {family.name}", collection="other") for family in found]
    facts = group_definitions([*found, *other], new=[], apart={("other", "length")}, far=[], unseen=[])
    groups = {(one.collection, one.definition): one.group for one in facts}
    assert groups["other", "length"] == "known-definition" and groups[made.name, "length"] == "train"
    assert Counter(groups.values())["known-definition"] == 1


def test_what_is_no_library_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no library of tasks"):
        read_library(tmp_path)
    (tmp_path / "tasks.json").write_text('{"version": 9}')
    with pytest.raises(DataError, match="version is 9"):
        read_library(tmp_path)
    (tmp_path / "tasks.json").write_text(f'{{"version": {VERSION}, "families": []}}')
    with pytest.raises(StorageError, match="is damaged"):
        read_library(tmp_path)


def test_too_few_texts_are_refused(tmp_path: Path) -> None:
    path = write_corpus(tmp_path, "few", 20)
    with pytest.raises(DataError, match="few has 20 queries and 20 documents"):
        collect("few", read_source(str(path), PrepareConfig()), None, 0)


def test_a_column_of_the_source_is_an_attribute(tmp_path: Path) -> None:
    path = with_column(write_corpus(tmp_path, "bank"), "module")
    made = collect("bank", read_source(str(path), PrepareConfig(split_by="module")), None, 0)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    module = {row["query"]: row["module"] for row in rows} | {row["response"]: row["module"] for row in rows[::-1]}
    assert made.query_groups == tuple(module[query] for query in made.queries)
    assert made.document_groups == tuple(module[document] for document in made.documents)

    family = families(made, [], [], 0)[0]
    (grouped,) = (one for one in family.definitions if one.name == "group")
    for place, query in enumerate(family.queries["test"]):
        relevant = grouped.document["test"] == grouped.query["test"][place]
        documents = zip(family.documents["test"], relevant.tolist(), strict=True)
        assert all((module[document] == module[query]) == found for document, found in documents)
    assert {"length+group", "opening+length+group"} <= {one.name for one in family.definitions}
    assert "source" in grouped.descriptions["en"][0]


def test_without_such_a_column_there_is_no_such_attribute(tmp_path: Path) -> None:
    made = collection(tmp_path)
    assert not any(made.query_groups)
    assert not any("group" in one.name for family in families(made, [], [], 0) for one in family.definitions)
