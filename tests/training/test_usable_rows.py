"""Which rows a loss can use, and what is said where it can use none."""

from __future__ import annotations

import pytest

from acclimate.configs import ObjectiveConfig, RunConfig, TrainConfig, with_overrides
from acclimate.errors import DataError, UsageError
from acclimate.training.usable_rows import check_signal, rows_for
from acclimate.types import Example

PAIR = Example("a", "b", label=0.7)
PLAIN = Example("a", "b")
MINED = Example("a", "b", ("c", "d"))
SCORED = Example("a", "b", ("c", "d"), scores=(0.9, 0.1, 0.2))


def config(loss: str, **changes: object) -> tuple[ObjectiveConfig, TrainConfig]:
    whole = with_overrides(RunConfig(), {"loss": loss, **changes})
    return whole.objective, whole.train


@pytest.mark.parametrize(
    ("example", "loss", "message"),
    [
        (PLAIN, "cosent", "'cosent' needs labels.*info-nce.*triplet"),
        (SCORED, "online-contrastive", "needs labels"),
        (PLAIN, "triplet", "needs negatives.*acclimate mine"),
        (PAIR, "triplet", "needs negatives.*cosine-mse"),
        (PLAIN, "kl", "needs negatives"),
        (MINED, "margin-mse", "needs a teacher's scores.*--reranker"),
    ],
)
def test_what_a_loss_lacks_is_named(example: Example, loss: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rows_for([example], *config(loss))


def test_rows_that_lack_something_are_left_out() -> None:
    assert rows_for([PLAIN, MINED, SCORED], *config("triplet")) == ([MINED, SCORED], "triplet")
    assert rows_for([PLAIN, MINED, SCORED], *config("kl")) == ([SCORED], "kl")
    assert rows_for([PAIR, Example("c", "d", label=0.2)], *config("info-nce")) == ([PAIR], "info-nce")


def test_auto_follows_the_labels() -> None:
    assert rows_for([PAIR], *config("auto"))[1] == "cosine-mse"
    assert rows_for([PLAIN], *config("auto"))[1] == "info-nce"


def test_scores_must_match_their_documents_and_negatives_must_be_drawn() -> None:
    with pytest.raises(DataError, match="2 scores for one positive and 2 negatives"):
        rows_for([Example("a", "b", ("c", "d"), scores=(0.9, 0.1))], *config("kl"))
    with pytest.raises(UsageError, match="group_size = 1"):
        rows_for([MINED], *config("triplet", group_size=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "cosent", "guide": "some-model"}, "guide.*only with info-nce"),
        ({"loss": "kl", "temperature_kind": "learned"}, "temperature_kind"),
        ({"loss": "embedding-distillation"}, "no teacher.*--embedding-teacher"),
        ({"loss": "info-nce", "embedding_teacher": "x"}, "possible|Possible: embedding-distillation"),
        ({"matryoshka_dims": (4, 4)}, "twice"),
        ({"matryoshka_dims": (4,), "matryoshka_weights": (1.0, 2.0)}, "2 matryoshka_weights for 1"),
        ({"guide": "x", "guide_margin": None}, "masks nothing"),
        ({"retain_weight": -1.0}, "retain_weight"),
        ({"retain_data": "x", "retain_weight": 0.0}, "retains nothing"),
        ({"blocks": ()}, "blocks = none"),
    ],
)
def test_settings_that_exclude_each_other(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_overrides(RunConfig(), settings)


def test_one_dataset_among_several_leaves_what_its_loss_would_refuse() -> None:
    objective, _ = config("info-nce", guide="x", temperature_kind="learned")
    other = objective.with_loss("cosent")
    assert (other.loss, other.guide, other.temperature_kind) == ("cosent", None, "fixed")
    assert objective.with_loss("info-nce") == objective


OTHER = Example("e", "f")


@pytest.mark.parametrize(
    ("rows", "loss", "settings", "message"),
    [
        ([PLAIN, OTHER], "info-nce", {"batch_size": 1}, "batch_size = 1 with 2.*told apart.*acclimate mine"),
        ([PLAIN], "info-nce", {}, "batch_size = 128 with 1 training row, without negatives"),
        ([MINED], "info-nce", {"batch_size": 1, "group_size": 1}, "gradient would be 0"),
        ([PAIR, PAIR], "cosent", {"batch_size": 1}, "compares the pairs of a batch"),
        ([PAIR, PAIR], "online-contrastive", {"batch_size": 1}, "compares the pairs of a batch"),
        ([PAIR, PAIR], "angle", {}, "label 0.7: angle learns an order"),
        ([PLAIN, Example("c", "B.")], "info-nce", {}, "the same positive"),
        ([PLAIN, Example("A", "c")], "info-nce", {}, "the same query"),
    ],
)
def test_a_training_that_compares_nothing_is_refused(
    rows: list[Example], loss: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises((UsageError, DataError), match=message):
        check_signal(rows, loss, config(loss, **settings)[1])


def test_a_training_that_compares_something_is_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    check_signal([PLAIN, OTHER], "info-nce", config("info-nce", batch_size=2)[1])
    check_signal([MINED], "info-nce", config("info-nce", batch_size=1)[1])
    check_signal([PAIR], "cosine-mse", config("cosine-mse", batch_size=1)[1])
    check_signal([MINED, Example("e", "b", ("c",))], "info-nce", config("info-nce")[1])
    assert capsys.readouterr().err == ""
    check_signal([MINED, PLAIN], "info-nce", config("info-nce", batch_size=1)[1])
    assert "1 of them have no negatives" in capsys.readouterr().err


def test_rows_that_lack_scores_are_counted_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    rows_for([MINED, SCORED], *config("kl"))
    assert "1 of 2 examples lack a teacher's scores and are left out" in capsys.readouterr().err
