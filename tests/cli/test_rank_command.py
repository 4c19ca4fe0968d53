"""``featx rank`` as a person or a program calls it."""

import json

import pytest

QUICK = ["--C-grid", "1e-3:1:2", "--cv", "3", "--inner-cv", "2", "--n-jobs", "1"]
TINY = ["--backbone", "squeezenet1_1", "--weights", "random"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_photo):
    """Sixteen pictures of two classes, four unlabelled ones beside them in a table."""
    folder = tmp_path_factory.mktemp("rank")
    rows = ["path,label,patient"]
    for i in range(20):
        label, colour = [("moss", (60, 140, 60)), ("rust", (160, 80, 50))][i % 2]
        name = f"photos/{i:02}.png"
        write_photo(folder / name, colour, i)
        rows.append(f"{name},{label if i < 16 else ''},p{i // 2 % 8 * 2 + i % 2}")
    (folder / "table.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def files(featx, folder):
    """Three feature files of them; one with the network's own class scores."""
    paths = [folder / f"{name}.h5" for name in ("mini", "squeeze", "classes")]
    for path, options in zip(paths, (["--backbone", "featx-mini"], TINY, [*TINY, "--with-logits"]), strict=True):
        if not path.exists():
            outcome = featx("extract", folder / "table.csv", "-o", path, "--group-column", "patient", *options)
            assert outcome.code == 0, outcome.err
    return paths


def test_it_prints_the_order_the_ties_the_scores_and_how_little_they_say(featx, files):
    outcome = featx("rank", *files, *QUICK)
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    for words in (
        "ranked by balanced_accuracy",
        "on 16 samples of 2 classes",
        "features score 95 % interval behind 95 % interval",
        "interval: Wilson at the effective sample size (16 samples in 3 folds)",
        "guessing the largest class: 0.500",
        "Tied with the first",
        "file backbone LogME H H reg. TransRate LEEP NCE",
        "H is 1 (classes - 1) for any labels",
        "says nothing of all files",
        "No LEEP and NCE of",
        "featx extract --with-logits",
        "an aid, not a verdict",
        "weighted tau of 0.42 to 0.69",
        "3 files in",
    ):
        assert words in text, words
    assert max(map(len, outcome.out.splitlines())) <= 100
    assert "Samples without a label, left out: 4." in outcome.err
    assert "best of 3" in " ".join(outcome.err.split())
    assert "No groups" not in outcome.err


def test_json_is_one_object_and_nothing_else(featx, files):
    outcome = featx("rank", *files, *QUICK, "--json", "--quiet")
    report = outcome.json
    assert outcome.err == ""
    assert [file["backbone"] for file in report["files"]].count("squeezenet1_1") == 2
    means = [file["score"]["mean"] for file in report["files"]]
    assert means == sorted(means, reverse=True)
    assert report["groups"] == {"n": 16, "source": "column patient"}
    with_logits = {file["path"]: file["transferability"]["leep"] is not None for file in report["files"]}
    assert [with_logits[str(path)] for path in files] == [False, False, True]
    assert all("--with-logits" in file["why_none"]["nce"] for file in report["files"] if file["why_none"])


def test_long_and_equal_names_stay_apart_and_lines_short(featx, files, folder):
    paths = []
    for place in ("one", "two"):
        path = folder / place / f"photos.{'timm-vit_base_patch14_reg4_dinov2.lvd142m' * 2}.h5"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files[0].read_bytes())
        paths.append(path)
    outcome = featx("rank", *paths, *QUICK)
    table = [line for line in outcome.out.splitlines() if "..." in line]
    assert len(table) == 4
    assert max(map(len, table)) <= 100
    assert json.dumps(str(paths[1])) in json.dumps(featx("rank", *paths, *QUICK, "--json").json["files"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--scoring", "acuracy"], 2, "did you mean accuracy"),
        (["--scaling", "minmax"], 2, "standardise"),
        (["--C-grid", "1:0:3"], 2, "LO <= HI"),
        (["--cv", "1"], 2, "--cv"),
        (["--cv", "9"], 4, "--cv"),
        (["--min-per-class", "9"], 4, "--min-per-class 9"),
    ],
)
def test_a_wrong_option_gets_one_clear_message_and_its_exit_code(featx, files, arguments, code, words):
    outcome = featx("rank", files[0], *arguments)
    assert outcome.code == code, outcome.err
    assert words in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err


def test_files_that_do_not_go_together_end_with_their_exit_codes(featx, files, folder, tmp_path):
    assert featx("rank").code == 2
    assert featx("rank", files[0], files[0]).code == 2
    assert featx("rank", files[0], tmp_path / "nowhere.h5").code == 5
    other = tmp_path / "other.h5"
    assert featx("extract", folder / "photos", "-o", other, *TINY).code == 0
    outcome = featx("rank", files[0], other, *QUICK)
    assert outcome.code == 4
    assert "no sample is in every file" in " ".join(outcome.err.split())


def test_one_class_is_an_error_and_missing_rows_need_to_be_allowed(featx, photos, tmp_path, write_photo):
    (photos / "moss" / "broken.png").write_bytes(b"broken")
    assert featx("extract", photos, "-o", tmp_path / "x.h5", *TINY).code == 8
    outcome = featx("rank", tmp_path / "x.h5", *QUICK)
    assert outcome.code == 5
    assert "moss/broken.png" in outcome.err
    assert featx("rank", tmp_path / "x.h5", *QUICK, "--allow-missing").code == 0
    for i in range(4):
        write_photo(tmp_path / "one" / "moss" / f"{i}.png", (60, 140, 60), i)
    assert featx("extract", tmp_path / "one", "-o", tmp_path / "one.h5", *TINY).code == 0
    outcome = featx("rank", tmp_path / "one.h5")
    assert outcome.code == 4
    assert "only one class, 'moss'" in outcome.err
