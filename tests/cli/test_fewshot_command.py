"""``featx fewshot`` as a person or a program calls it."""

import pytest

MINI = ["--backbone", "featx-mini"]
QUICK = ["--repeats", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_photo):
    """Thirty-two pictures of two classes, eight unlabelled ones beside them in a table."""
    folder = tmp_path_factory.mktemp("fewshot")
    rows = ["path,label,patient"]
    for i in range(40):
        label, colour = [("moss", (60, 140, 60)), ("rust", (130, 110, 55))][i % 2]
        name = f"photos/{i:02}.png"
        write_photo(folder / name, colour, i)
        rows.append(f"{name},{label if i < 32 else ''},p{i // 2 % 16 * 2 + i % 2}")
    (folder / "table.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def file(featx, folder):
    path = folder / "x.h5"
    if not path.exists():
        outcome = featx("extract", folder / "table.csv", "-o", path, "--group-column", "patient", *MINI)
        assert outcome.code == 0, outcome.err
    return path


def test_it_prints_scores_the_curve_and_what_more_labels_would_bring(featx, file):
    outcome = featx("fewshot", file, *QUICK, "--transductive")
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    for words in (
        "balanced_accuracy, mean and 95 % interval. Up to 3 sets of k samples of each of 2 classes; a fold of 4",
        "k labels draws logreg lda knn",
        "k labels draws prototype prototype+unlabelled label-propagation",
        "logreg: C = 10 lda: shrinkage = 0.8 knn: n_neighbors = k, at most 20",
        "how many more labels for 3 points more?",
        "fits in",
    ):
        assert words in text, words
    assert max(map(len, outcome.out.splitlines())) <= 100
    assert outcome.err == ""


def test_json_is_one_object_and_nothing_else(featx, file):
    outcome = featx("fewshot", file, *QUICK, "--shots", "2,1", "--head", "knn", "--json", "--quiet")
    report = outcome.json
    assert [score["k"] for score in report["heads"][0]["scores"]] == [1, 2]
    assert report["left_out"]["unlabelled"] == 8
    assert any("--transductive" in note for note in report["warnings"])
    assert outcome.err == ""


def test_episodes_are_printed_in_the_same_table(featx, file):
    outcome = featx("fewshot", file, "--episodes", "10", "--ways", "2", "--shots", "1", "--queries", "3")
    assert outcome.code == 0, outcome.err
    assert "1.96 standard errors over 10 episodes" in outcome.out
    assert "learning curve" not in outcome.out
    assert "k  labels  episodes" in outcome.out


def test_values_chosen_inside_are_counted(featx, file):
    outcome = featx("fewshot", file, *QUICK, "--inner-cv", "2", "--shots", "4", "--head", "logreg")
    assert outcome.code == 0, outcome.err
    assert "logreg, k = 4: C = " in outcome.out


def test_suggestions_are_a_table_or_json(featx, file, folder):
    outcome = featx("fewshot", file, "--suggest", "3")
    assert outcome.code == 0, outcome.err
    assert "label these 3 images next" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100
    found = featx("fewshot", file, "--suggest", "3", "--json").json["suggestions"]
    assert all(int(one["key"].split("/")[1][:2]) >= 32 for one in found)
    assert [one["key"] in outcome.out for one in found] == [True] * 3
    other = folder / "other.h5"
    assert featx("extract", folder / "photos", "-o", other, *MINI).code == 0
    elsewhere = featx("fewshot", file, "--suggest", "3", "--unlabelled", other, "--json").json["suggestions"]
    assert all(int(one["key"][:2]) >= 32 for one in elsewhere)


def test_suggestions_from_a_file_of_labelled_images_alone_are_refused_by_its_name(featx, photos, tmp_path):
    target, copy = tmp_path / "x.h5", tmp_path / "copy.h5"
    for name in (target, copy):
        assert featx("extract", photos, "-o", name, *MINI).code == 0
    outcome = featx("fewshot", target, "--suggest", "3", "--unlabelled", copy)
    assert outcome.code == 4
    assert "all 16 images of" in outcome.err
    assert "have a label already" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--head", "logrec"], 2, "did you mean logreg"),
        (["--shots", "1,two"], 2, "numbers of samples"),
        (["--shots", "17"], 2, "samples of the smallest class"),
        (["--episodes", "5", "--ways", "3"], 2, "--ways 3"),
        (["--episodes", "5", "--ways", "2", "--queries", "99"], 4, "ask for fewer"),
        (["--unlabelled", "x.h5"], 2, "--suggest"),
        (["--ways", "2"], 2, "--ways is of episodes: give --episodes N as well"),
        (["--queries", "2"], 2, "--queries is of episodes: give --episodes N as well"),
        (["--min-per-class", "99"], 4, "--min-per-class"),
        (["--C", "0"], 2, "--C"),
    ],
)
def test_a_wrong_option_gets_one_clear_message_and_its_exit_code(featx, file, arguments, code, words):
    outcome = featx("fewshot", file, *arguments)
    assert outcome.code == code, outcome.err
    assert words in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
