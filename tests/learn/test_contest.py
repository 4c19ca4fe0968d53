"""What competes: the files made ready, and which candidate wins each job."""

import dataclasses

import numpy as np
import pytest

from featx.errors import InputError, UsageError
from featx.learn.choice import Choice
from featx.learn.contest import Candidate, Contest, enter, name_files
from featx.learn.convergence import Unconverged
from featx.learn.dataset import Features, LockedPart
from featx.learn.search import Fitted, Outcome
from featx.learn.views import ViewUse


def features(n=6, d=3, *, order=None, n_views=1, **columns):
    empty = np.array([""] * n, dtype=object)
    known = {
        "X": np.arange(n * d, dtype=np.float32).reshape(n, d),
        "y": np.array(["ant", "bee"] * (n // 2)),
        "groups": empty,
        "keys": np.array([f"{i}.png" for i in range(n)], dtype=object),
        "splits": empty,
        "folds": empty,
        "sha256": empty,
    }
    made = Features(**(known | columns))
    made = made if order is None else made.take(np.array(order))
    if n_views == 1:
        return made
    return dataclasses.replace(made.take(np.repeat(np.arange(n), n_views)), views=np.tile(np.arange(n_views), n))


def made_ready(files, *, views=None, score_views=None, allow_missing=False):
    return enter(files, views=views, score_views=score_views, allow_missing=allow_missing)


def choice(head, score, value=1.0):
    return Choice(head, "raw", value, score)


def outcome(unconverged=(), **scores):
    return Outcome(
        {head: Fitted(choice(head, score), np.array([]), np.zeros((0, 2)), None) for head, score in scores.items()},
        list(unconverged),
    )


def contest(**jobs_of_files):
    entries = made_ready({name: features() for name in jobs_of_files})
    return Contest(entries, {name: [outcome(**job) for job in jobs] for name, jobs in jobs_of_files.items()})


def test_files_are_called_by_their_names_unless_two_have_the_same():
    assert name_files(["x/a.h5", "y/b.h5"]) == ["a.h5", "b.h5"]
    assert name_files(["x/a.h5", "y/a.h5"]) == ["x/a.h5", "y/a.h5"]


def test_rows_of_every_file_are_in_the_order_of_the_first():
    one, two = made_ready({"a": features(), "b": features(order=[5, 3, 1, 0, 2, 4])})
    assert one.samples.keys.tolist() == two.samples.keys.tolist()
    np.testing.assert_array_equal(one.samples.X, two.samples.X)


def test_samples_that_some_file_lacks_are_an_error_or_left_out_and_counted():
    files = {"a": features(), "b": features().take(np.array([0, 1, 2, 5]))}
    with pytest.raises(InputError, match=r"b lacks 2 that another has, the first '3.png'.*--allow-missing"):
        made_ready(files)
    one, two = made_ready(files, allow_missing=True)
    assert one.samples.keys.tolist() == two.samples.keys.tolist() == ["0.png", "1.png", "2.png", "5.png"]
    assert one.samples.n_missing == two.samples.n_missing == 2


def test_files_that_keep_different_samples_locked_do_not_compete():
    part = LockedPart(2, "2024-05-01", (), ("0" * 64, "1" * 64))
    other = dataclasses.replace(part, sha256=("0" * 64, "2" * 64))
    locked = features(locked=part)
    found = "a and b keep different samples locked .*"
    for files, words in (
        ({"a": locked, "b": features()}, "Lock the one like the other: featx lock b --like a"),
        ({"a": features(), "b": locked}, "Lock the one like the other: featx lock a --like b"),
        ({"a": locked, "b": features(locked=other)}, "extract one of them anew.* featx lock NEW.h5 --like a"),
    ):
        with pytest.raises(InputError, match=found + words):
            made_ready(files, allow_missing=True)
    assert len(made_ready({"a": locked, "b": features(locked=dataclasses.replace(part, date="2024-06-01"))})) == 2


def test_views_are_for_the_files_that_have_them():
    plain, viewed = features(), features(n_views=3)
    one, two = made_ready({"a": plain, "b": viewed}, score_views="average")
    assert (one.use, one.n_views, two.use, two.n_views) == (ViewUse(), 1, ViewUse("all", "average"), 3)
    np.testing.assert_array_equal(two.plain, plain.X)
    with pytest.raises(UsageError, match="--score-views average"):
        made_ready({"a": plain, "b": features()}, score_views="average")


def test_a_job_is_won_by_the_best_inner_score_of_all_heads_on_all_files():
    held = contest(
        a=[{"logreg": 0.7, "svm": 0.6}, {"logreg": 0.7, "svm": 0.9}],
        b=[{"logreg": 0.5, "svm": 0.8}, {"logreg": 0.8, "svm": 0.8}],
    )
    assert [str(one) for one in held.winners()] == ["svm on b", "svm on a"]
    assert [one.choice.score for one in held.best()] == [0.8, 0.9]
    assert [one.choice.score for one in held.best(held.of_files(["a"]))] == [0.7, 0.9]
    assert [str(one) for one in held.of_jobs([0]).winners()] == ["svm on b"]
    assert [str(one) for one in held.runner_up()] == ["svm on a", "logreg on b"]
    assert held.next_file() == "b"


def test_what_is_as_good_goes_to_the_simpler_head_then_to_the_earlier_file():
    held = contest(a=[{"logreg": 0.8, "svm": 0.8}], b=[{"logreg": 0.8, "svm": 0.8}])
    assert held.winners() == [Candidate("a", "logreg")]
    assert contest(a=[{"svm": 0.8}], b=[{"logreg": 0.8}]).entry("b").name == "b"


def test_which_of_two_is_simpler():
    entries = made_ready({"a": features(), "b": features(d=5), "c": features(n_views=2), "d": features()})
    held = Contest(entries, {one.name: [outcome(logreg=0.5, svm=0.5)] for one in entries})
    say = held.simpler
    assert say(Candidate("b", "svm"), Candidate("a", "svm")) == "svm on a has fewer features (3, not 5)"
    assert say(Candidate("c", ""), Candidate("a", "")) == "a has fewer views of an image (1, not 2)"
    assert say(Candidate("a", "svm"), Candidate("a", "logreg")) == "logreg on a is named first by featx heads"
    assert say(Candidate("d", "svm"), Candidate("a", "svm")) == "svm on a was given first"


def test_fits_that_did_not_converge_say_in_which_file():
    failure = Unconverged("search", "2", 1, "logreg", "raw", 10.0)
    entries = made_ready({"a": features(), "b": features()})
    held = Contest(entries, {"a": [outcome([failure], logreg=0.5)], "b": [outcome(logreg=0.5)]})
    assert held.unconverged == [dataclasses.replace(failure, fold="2 on a")]


def test_one_file_alone_has_no_name_and_nothing_beside_it():
    [entry] = made_ready(features())
    held = Contest([entry], {"": [outcome([Unconverged("search", "2", 1, "logreg", "raw", 1.0)], logreg=0.5)]})
    assert str(held.winners()[0]) == "logreg"
    assert held.runner_up() == (Candidate("", "logreg"), None)
    assert held.next_file() == ""
    assert held.unconverged[0].fold == "2"
