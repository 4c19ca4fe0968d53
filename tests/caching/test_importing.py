"""Importing: features made elsewhere, in the layouts of other programs, become ordinary feature files."""

import csv
import hashlib
import os
import pickle
import struct

import h5py
import numpy as np
import pytest
import store_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import featx
from featx.caching.exporting import export_features
from featx.caching.foreign import ImportOptions
from featx.caching.importing import import_features, read_source
from featx.caching.merging import merge_features
from featx.errors import InputError, ManifestError, SpecMismatchError, UsageError
from featx.store.file import FeatureFile

N, D = 12, 5
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
KEYS = [f"{'ab'[i % 2]}/{i:02d}.jpg" for i in range(N)]
Y = ["ab"[i % 2] for i in range(N)]
GROUPS = [f"g{i // 3}" for i in range(N)]
SPLITS = ["train"] * 8 + ["test"] * 4


def taken(folder, source, **options):
    """Import a file and return the report and all that the feature file says."""
    output = folder / f"{hashlib.sha256(os.urandom(9)).hexdigest()[:8]}.h5"
    report = import_features(source, output, ImportOptions(**options))
    with FeatureFile.open(output) as file:
        file.verify()
        columns = {name: getattr(file, name)() for name in ("keys", "labels", "groups", "splits", "folds")}
        columns |= {"X": file.features(), "meta": file.meta(), "spec": file.spec, "ledger": file.ledger()}
        return report, {**columns, "group_source": file.group_source}


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=Y, keys=KEYS, groups=GROUPS, splits=SPLITS, age=np.arange(N))
    return tmp_path / "x.npz"


def test_npz(tmp_path, npz):
    report, file = taken(tmp_path, npz)
    np.testing.assert_array_equal(file["X"], X)
    assert (file["keys"], file["labels"], file["groups"], file["splits"]) == (KEYS, Y, GROUPS, SPLITS)
    assert file["meta"] == {"age": [str(i) for i in range(N)]}
    assert file["group_source"] == "array groups"
    assert (report.samples, report.rows, report.labelled, report.groups) == (N, N, N, 4)
    spec = file["spec"]
    assert spec.is_foreign
    assert (spec.backbone, spec.n_features) == ("foreign:npz", D)
    assert spec.weights_sha256 == hashlib.sha256(npz.read_bytes()).hexdigest()
    assert len(set(file["ledger"].sha256)) == N


@pytest.mark.parametrize("name", ["X", "features", "embeddings", "anything"])
def test_npz_under_other_names_and_without_names_of_rows(tmp_path, name):
    np.savez(tmp_path / "x.npz", **{name: X, "target": np.arange(N, dtype=float)})
    report, file = taken(tmp_path, tmp_path / "x.npz")
    assert file["labels"] == [str(i) for i in range(N)]
    assert file["keys"][:2] == ["row 00", "row 01"]
    assert any("their keys are their numbers" in note for note in report.notes)


def test_columns_can_be_named(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, species=Y, y=GROUPS, patient=GROUPS)
    _, file = taken(tmp_path, tmp_path / "x.npz", columns={"label": "species", "group": "patient"})
    assert (file["labels"], file["groups"], file["meta"]) == (Y, GROUPS, {"y": GROUPS})
    with pytest.raises(UsageError, match="no array 'other'; there are"):
        taken(tmp_path, tmp_path / "x.npz", columns={"label": "other"})


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", ">f4"])
def test_npz_of_any_type_and_order(tmp_path, monkeypatch, dtype, order, compressed):
    monkeypatch.setattr("featx.caching.npz._BLOCK_BYTES", 3 * D * np.dtype(dtype).itemsize)
    values = np.asarray(np.abs(X) * 10, dtype=dtype, order=order)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", X=values)
    report, file = taken(tmp_path, tmp_path / "x.npz")
    stored = "float16" if dtype == "float16" else "float32"
    assert file["X"].dtype == stored
    np.testing.assert_array_equal(file["X"], values.astype(stored))
    assert any("numbers are stored as float32" in note for note in report.notes) == (
        dtype not in ("float16", "float32")
    )


def test_rows_of_more_than_one_axis_keep_their_shape_in_the_spec(tmp_path):
    np.save(tmp_path / "x.npy", X.reshape(N, D, 1))
    _, file = taken(tmp_path, tmp_path / "x.npy")
    assert file["spec"].feature_shape == (D, 1)
    np.testing.assert_array_equal(file["X"], X)


def test_a_pickle_is_refused_and_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    bombs = np.array([Bomb()] * N, dtype=object)
    np.savez(tmp_path / "x.npz", X=X, y=bombs)
    np.savez(tmp_path / "z.npz", X=bombs.reshape(N, 1), y=Y)
    np.save(tmp_path / "x.npy", bombs.reshape(N, 1), allow_pickle=True)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("x.npz", "z.npz", "x.npy", "x.pkl", "x.pt"):
        with pytest.raises(InputError, match=r"could run code|may run code"):
            taken(tmp_path, tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.csv", "x.parquet", "x.h5", "x.txt"])
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00", b"\x00\xff\xfe" * 99, b"a,b\n"])
def test_bytes_that_are_nothing_are_one_error(tmp_path, name, data):
    if name == "x.parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        taken(tmp_path, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("shape", ["(3,", "(3, 2", '"""', "(" * 5000])
def test_a_header_that_is_no_python_is_one_error(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError, match=r"x\.npy"):
        taken(tmp_path, tmp_path / "x.npy")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_npz_with_any_byte_changed_is_read_or_is_one_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "mutated.npz"
    np.savez(path, X=X[:3], y=Y[:3], keys=KEYS[:3])
    mutated = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(mutated)
    try:
        import_features(path, folder / "mutated.h5", replace=True)
    except (InputError, UsageError):
        return
    with FeatureFile.open(folder / "mutated.h5") as file:
        file.verify()


def test_rows_that_are_not_finite_fail_and_are_named(tmp_path):
    values = X.astype(np.float64)
    values[2, 1], values[5, 0], values[7, 3] = np.nan, np.inf, 1e300  # too large for float32
    np.savez(tmp_path / "x.npz", X=values, y=Y, keys=KEYS)
    report, file = taken(tmp_path, tmp_path / "x.npz")
    assert report.failures == {KEYS[i]: "not-finite" for i in (2, 5, 7)}
    assert report.failures_by_reason == {"not-finite": 3}
    kept = [i for i in range(N) if i not in (2, 5, 7)]
    np.testing.assert_array_equal(file["X"], X[kept])
    assert file["keys"] == [KEYS[i] for i in kept]
    assert file["ledger"].label == Y


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.parquet", "x.txt"])
def test_a_mutated_file_is_read_or_is_one_error(tmp_path, name):
    if name == "x.parquet":
        pa = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.table({"key": KEYS, "v": [x.tolist() for x in X]}), tmp_path / name)
    elif name == "x.csv":
        write_csv(tmp_path / name, ["key", "u", "v"], [[k, *x[:2]] for k, x in zip(KEYS, X, strict=True)])
    else:
        (np.save if name == "x.npy" else np.savetxt)(tmp_path / name, X)
    whole = (tmp_path / name).read_bytes()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            start, n = rng.integers(len(data)), rng.integers(1, 9)
            data[start : start + n] = rng.bytes(len(data[start : start + n]))
        if seed % 5 == 0:
            del data[rng.integers(len(data)) :]
        (tmp_path / name).write_bytes(data)
        try:
            features = read_source(tmp_path / name, ImportOptions())
            assert sum(len(block) for block in features.blocks()) == features.n_samples
        except (InputError, UsageError):
            continue


@settings(max_examples=12, deadline=None)
@given(values=hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(width=32)))
def test_every_row_is_a_row_or_a_failure(tmp_path_factory, values):
    folder = tmp_path_factory.getbasetemp()
    np.savez(folder / "any.npz", X=values)
    report = import_features(folder / "any.npz", folder / "any.h5", replace=True)
    good = np.isfinite(values).all(axis=1)
    assert (report.rows, len(report.failures)) == (good.sum(), (~good).sum())
    with FeatureFile.open(folder / "any.h5") as file:
        np.testing.assert_array_equal(file.features(), values[good].astype(np.float32))
        assert file.keys() == [f"row {i}" for i in np.flatnonzero(good)]


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, keys=[*KEYS[:-1], KEYS[0]])
    with pytest.raises(InputError, match=r"1 keys are there more than once \('a/00.jpg'\)"):
        taken(tmp_path, tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", X=X, keys=[*KEYS[:-1], ""])
    with pytest.raises(InputError, match="row 12 has an empty key"):
        taken(tmp_path, tmp_path / "x.npz")


def test_arrays_that_do_not_fit_each_other(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=Y[:-1])
    with pytest.raises(InputError, match="12 rows of X and 11 of y"):
        taken(tmp_path, tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", X=X, splits=["training"] * N)
    with pytest.raises(ManifestError, match="'training' is not a split"):
        taken(tmp_path, tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", X=X[:, 0])
    with pytest.raises(InputError, match="expected \\(n_samples, n_features\\)"):
        taken(tmp_path, tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", one=X, two=X)
    with pytest.raises(InputError, match="no array of features; expected one of X, "):
        taken(tmp_path, tmp_path / "x.npz")


# Tables


def write_csv(path, header, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("x.csv", ","), ("x.csv", ";"), ("x.tsv", "\t")])
def test_csv_columns_of_numbers_are_features(tmp_path, name, delimiter):
    rows = [[KEYS[i], *X[i, :2], f"site, {i}", Y[i], *X[i, 2:], GROUPS[i], SPLITS[i]] for i in range(N)]
    header = ["filename", "u", "v", "site", "Label", "w", "x", "z", "group", "split"]
    report, file = taken(tmp_path, write_csv(tmp_path / name, header, rows, delimiter))
    np.testing.assert_array_equal(file["X"], X)
    assert (file["keys"], file["labels"], file["groups"], file["splits"]) == (KEYS, Y, GROUPS, SPLITS)
    assert file["meta"] == {"site": [f"site, {i}" for i in range(N)]}
    assert "5 features: columns u to z" in report.notes
    assert file["group_source"] == "column group"


def test_csv_columns_can_be_chosen(tmp_path):
    rows = [[KEYS[i], 40 + i, *X[i]] for i in range(N)]
    path = write_csv(tmp_path / "x.csv", ["key", "age", *(f"emb_{i}" for i in range(D))], rows)
    assert taken(tmp_path, path)[1]["X"].shape == (N, D + 1)
    _, file = taken(tmp_path, path, feature_columns="^emb_")
    np.testing.assert_array_equal(file["X"], X)
    assert file["meta"] == {"age": [str(40 + i) for i in range(N)]}
    with pytest.raises(UsageError, match="matches no column"):
        taken(tmp_path, path, feature_columns="^f")
    with pytest.raises(UsageError, match="not a regular expression"):
        taken(tmp_path, path, feature_columns="(")


def test_csv_numbered_columns_are_the_features_and_an_empty_one_is_a_failed_row(tmp_path):
    rows = [[KEYS[i], i, *X[i]] for i in range(N)]
    rows[3][4] = ""
    path = write_csv(tmp_path / "x.csv", ["key", "age", *(f"f{i}" for i in range(D))], rows)
    report, file = taken(tmp_path, path)
    assert report.failures == {KEYS[3]: "not-finite"}
    assert file["X"].shape == (N - 1, D)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key,f0,f1\na,1\n", "line 2: 2 fields, but the header has 3"),
        ("key,f0,f1\na,1,2\nb,1,x\n", "line 3: a feature is not a number"),
        ("key,f0,f0\na,1,2\n", "two columns are named 'f0'"),
        ("key,name2\na,b\n", "no columns of numbers"),
        ('key,f0\n"a,1\n', "not a table"),
        ("key,f0\n", "no rows"),
    ],
)
def test_tables_that_are_wrong(tmp_path, text, words):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        taken(tmp_path, tmp_path / "x.csv")


def test_csv_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("featx.caching.tables._ROWS", 5)
    path = write_csv(
        tmp_path / "x.csv", ["key", *(f"f{i}" for i in range(D))], [[k, *x] for k, x in zip(KEYS, X, strict=True)]
    )
    np.testing.assert_array_equal(taken(tmp_path, path)[1]["X"], X)


@pytest.mark.parametrize("layout", ["columns", "list", "fixed list", "pandas"])
def test_parquet(tmp_path, layout):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    known = {"path": KEYS, "label": [*Y[:-1], None], "group": GROUPS}
    if layout == "columns":
        columns = {f"f{i}": X[:, i] for i in range(D)}
    elif layout == "fixed list":
        columns = {"embedding": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), D), "age": list(range(N))}
    else:
        columns = {"embedding": [x.tolist() for x in X], "age": list(range(N))}
    if layout == "pandas":
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame({**known, "embedding": list(X)}).to_parquet(tmp_path / "x.parquet")
    else:
        parquet.write_table(pa.table({**known, **columns}), tmp_path / "x.parquet", row_group_size=5)
    _, file = taken(tmp_path, tmp_path / "x.parquet")
    np.testing.assert_array_equal(file["X"], X)
    assert (file["keys"], file["labels"], file["groups"]) == (KEYS, [*Y[:-1], ""], GROUPS)
    assert file["meta"] == ({"age": [str(i) for i in range(N)]} if "age" in columns and layout != "pandas" else {})


def test_parquet_with_nulls_and_with_lists_of_several_lengths(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"key": ["a", "b"], "v": [None, [1.0, 2.0]]}), tmp_path / "x.parquet")
    report, file = taken(tmp_path, tmp_path / "x.parquet")
    assert report.failures == {"a": "not-finite"}
    assert file["X"].tolist() == [[1.0, 2.0]]
    parquet.write_table(pa.table({"key": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="'v' differ in length"):
        taken(tmp_path, tmp_path / "x.parquet")


# thingsvision


@pytest.mark.parametrize("kind", ["npy", "hdf5", "txt", "several npy", "several datasets"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_thingsvision(tmp_path, kind, as_folder):
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "file_names.txt").write_text("".join(f"{key}\n" for key in KEYS))
    if kind == "npy":
        np.save(folder / "features.npy", X)
    elif kind == "several npy":
        for i, part in enumerate(np.array_split(X, 3), start=1):
            np.save(folder / f"features_{i:02d}.npy", part)
    elif kind == "txt":
        np.savetxt(folder / "features.txt", X)
    else:
        with h5py.File(folder / "features.hdf5", "w") as file:
            parts = np.array_split(X, 3) if kind == "several datasets" else [X]
            for i, part in enumerate(parts, start=1):
                file[f"features_{i:02d}" if len(parts) > 1 else "features"] = part
    if kind == "several npy" and not as_folder:
        pytest.skip("several files are a folder")
    source = folder if as_folder else next(path for path in folder.iterdir() if path.name != "file_names.txt")
    _, file = taken(tmp_path, source, label_regex="^([^/]+)/", group_regex=r"(\d)\.jpg")
    np.testing.assert_array_equal(file["X"], X)
    assert (file["keys"], file["labels"]) == (KEYS, Y)
    assert file["groups"] == [key[-5] for key in KEYS]
    assert file["group_source"] == r"regex (\d)\.jpg"


def test_names_must_be_as_many_as_rows(tmp_path):
    np.save(tmp_path / "features.npy", X)
    (tmp_path / "file_names.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"file_names.txt: 2 names for 12 rows of features.npy"):
        taken(tmp_path, tmp_path / "features.npy")
    (tmp_path / "others.txt").write_text("\n".join(KEYS))
    assert taken(tmp_path, tmp_path / "features.npy", names=str(tmp_path / "others.txt"))[1]["keys"] == KEYS


# Labels beside the features


@pytest.mark.parametrize("ending", ["csv", "npy", "txt"])
def test_labels_in_the_order_of_the_rows(tmp_path, ending):
    np.save(tmp_path / "x.npy", X)
    labels = tmp_path / f"labels.{ending}"
    if ending == "csv":
        write_csv(labels, ["label", "group", "split"], zip(Y, GROUPS, SPLITS, strict=True))
    elif ending == "npy":
        np.save(labels, np.array(Y))
    else:
        labels.write_text("\n".join(Y))
    _, file = taken(tmp_path, tmp_path / "x.npy", labels=str(labels))
    assert file["labels"] == Y
    if ending == "csv":
        assert (file["groups"], file["splits"], file["group_source"]) == (GROUPS, SPLITS, "column group")
    labels.write_text("label\na\n") if ending == "csv" else labels.write_text("a") if ending == "txt" else None
    if ending != "npy":
        with pytest.raises(InputError, match="1 values of label for 12 rows"):
            taken(tmp_path, tmp_path / "x.npy", labels=str(labels))


def test_labels_are_joined_by_key(tmp_path, npz):
    rows = [[key, f"new {i}"] for i, key in enumerate(KEYS)]
    path = write_csv(tmp_path / "labels.csv", ["path", "label"], [["stranger", "x"], *reversed(rows[1:])])
    report, file = taken(tmp_path, npz, labels=str(path))
    assert file["labels"] == ["", *(f"new {i}" for i in range(1, N))]
    assert file["groups"] == GROUPS
    assert any("1 of 12 samples are not in labels.csv" in note for note in report.notes)
    assert any("1 of 12 keys of labels.csv are no sample's" in note for note in report.notes)
    write_csv(path, ["path", "label"], [["x", "y"]])
    with pytest.raises(
        InputError, match=r"none of its keys is a sample's; the first is 'x', the first sample 'a/00.jpg'"
    ):
        taken(tmp_path, npz, labels=str(path))
    write_csv(path, ["path", "label"], [[KEYS[0], "y"], [KEYS[0], "z"]])
    with pytest.raises(InputError, match="more than once"):
        taken(tmp_path, npz, labels=str(path))
    write_csv(path, ["path", "age"], [[KEYS[0], "y"]])
    with pytest.raises(InputError, match="no column label, group, split or fold"):
        taken(tmp_path, npz, labels=str(path))


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "not a regular"), ("a", "has no \\(group\\)"), ("(zz)", "no label")]
)
def test_label_patterns_that_cannot_be(tmp_path, npz, pattern, words):
    with pytest.raises((UsageError, InputError), match=words):
        taken(tmp_path, npz, label_regex=pattern)


# Slides


def write_slide(path, n, seed, leading=False, **extra):
    rng = np.random.default_rng(seed)
    features, coords = rng.normal(size=(n, D)).astype(np.float32), np.arange(2 * n).reshape(n, 2) * 256
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("features", data=features[None] if leading else features)
        dataset.attrs["savetodir"] = "elsewhere"
        file.create_dataset("coords", data=coords).attrs["patch_size"] = 256
        for name, values in extra.items():
            file[name] = values
    return features


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "features_uni_v1"
    rows = {f"s{i}": write_slide(folder / f"s{i}.h5", n, i, i == 1) for i, n in enumerate((3, 4, 2))}
    table = write_csv(
        tmp_path / "labels.csv", ["slide_id", "label", "group"], [[f"s{i}.svs", "xy"[i % 2], f"p{i}"] for i in range(3)]
    )
    return folder, rows, table


def test_patches_are_rows_and_their_slide_is_their_group(tmp_path, slides):
    folder, rows, _ = slides
    report, file = taken(tmp_path, folder)
    np.testing.assert_array_equal(file["X"], np.concatenate(list(rows.values())))
    assert file["keys"][:4] == ["s0/0_256", "s0/512_768", "s0/1024_1280", "s1/0_256"]
    assert file["groups"] == ["s0"] * 3 + ["s1"] * 4 + ["s2"] * 2
    assert file["meta"]["x"][:3] == ["0", "512", "1024"]
    assert (report.kind, report.groups) == ("slides", 3)


def test_labels_of_slides_are_those_of_their_patches(tmp_path, slides):
    folder, _, table = slides
    _, file = taken(tmp_path, folder, labels=str(table))
    assert file["labels"] == ["x"] * 3 + ["y"] * 4 + ["x"] * 2
    assert file["groups"] == ["p0"] * 3 + ["p1"] * 4 + ["p2"] * 2


def test_the_mean_of_a_slide_is_one_row(tmp_path, slides, monkeypatch):
    monkeypatch.setattr("featx.store.foreign._BLOCK_BYTES", 2 * D * 4)
    folder, rows, table = slides
    with h5py.File(folder / "s9.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((0, D), np.float32), np.zeros((0, 2), np.int64)
    report, file = taken(tmp_path, folder, pool="mean", labels=str(table))
    means = np.array([values.astype(np.float64).mean(axis=0) for values in rows.values()]).astype(np.float32)
    np.testing.assert_allclose(file["X"], means, rtol=1e-6)
    assert (file["keys"], file["labels"], file["groups"]) == (["s0", "s1", "s2"], ["x", "y", "x"], ["p0", "p1", "p2"])
    assert file["meta"] == {"patches": ["3", "4", "2", "0"]}
    assert report.failures == {"s9": "empty: a slide without a patch"}
    report, file = taken(tmp_path, folder)
    assert file["groups"].count("s9") == 0
    assert "1 slides without a patch: s9" in report.notes


def test_vectors_of_slides(tmp_path):
    folder = tmp_path / "slide_features_titan"
    folder.mkdir()
    for i in range(3):
        with h5py.File(folder / f"s{i}.h5", "w") as file:
            file["features"], file["coords"] = X[i], np.arange(8).reshape(4, 2)
    _, file = taken(tmp_path, folder)
    np.testing.assert_array_equal(file["X"], X[:3])
    assert file["keys"] == ["s0", "s1", "s2"]
    with pytest.raises(UsageError, match="is one vector already"):
        taken(tmp_path, folder, pool="mean")
    write_slide(folder / "s3.h5", 4, 3)
    with pytest.raises(InputError, match=r"s0.h5 is one vector and s3.h5 holds patches"):
        taken(tmp_path, folder)


def test_slides_are_tried_first(tmp_path, slides, with_trial):
    assert len(taken(tmp_path, slides[0])[1]["X"]) == 9


def test_clams_folder_and_a_single_slide(tmp_path, slides):
    folder, rows, _ = slides
    (tmp_path / "clam" / "pt_files").mkdir(parents=True)
    folder.rename(tmp_path / "clam" / "h5_files")
    assert len(taken(tmp_path, tmp_path / "clam")[1]["X"]) == 9
    _, file = taken(tmp_path, tmp_path / "clam" / "h5_files" / "s1.h5")
    np.testing.assert_array_equal(file["X"], rows["s1"])
    assert set(file["groups"]) == {"s1"}


def test_slides_that_do_not_fit(tmp_path, slides):
    folder, _, _ = slides
    with h5py.File(folder / "s7.h5", "w") as file:
        file["features"] = np.zeros((2, D + 1), np.float32)
    with pytest.raises(InputError, match=r"s7.h5 has rows of \(6,\), s0.h5 of \(5,\)"):
        taken(tmp_path, folder)
    with h5py.File(folder / "s7.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((3, D), np.float32), np.zeros((4, 2))
    with pytest.raises(InputError, match="3 rows of features and 4 coords"):
        taken(tmp_path, folder)
    (folder / "s7.h5").write_bytes(b"\x89HDF\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"s7.h5: cannot be read as HDF5"):
        taken(tmp_path, folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"neither features\.npy"):
        taken(tmp_path, tmp_path / "nothing")


def test_hdf5_that_points_elsewhere_is_refused(tmp_path):
    with h5py.File(tmp_path / "target.h5", "w") as file:
        file["features"] = X
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["features"] = h5py.ExternalLink("target.h5", "features")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(X.shape, X.dtype)
        layout[:] = h5py.VirtualSource("target.h5", "features", X.shape)
        file.create_virtual_dataset("features", layout)
    with h5py.File(tmp_path / "unwritten.h5", "w") as file:
        file.create_dataset("features", (10**9, 1000), np.float32, chunks=True)
    with h5py.File(tmp_path / "words.h5", "w") as file:
        file["features"] = ["a", "b"]
    for name, words in {
        "link": "no dataset of features",
        "virtual": "in another file",
        "unwritten": "never written",
        "words": "expected numbers",
    }.items():
        with pytest.raises(InputError, match=words):
            taken(tmp_path, tmp_path / f"{name}.h5")


@pytest.mark.parametrize("name", ["features", "coords", "site"])
def test_hdf5_that_was_not_written_to_its_end_is_refused_and_no_row_is_made_up(tmp_path, name):
    values = {"features": X, "coords": np.zeros((N, 2), int), "site": np.arange(N)}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for one, data in values.items():
            dataset = file.create_dataset(one, data.shape, data.dtype, chunks=(4, *data.shape[1:]))
            n = 4 if one == name else N
            dataset[:n] = data[:n]
    with pytest.raises(InputError, match=rf"x\.h5: dataset '{name}' was not written to its end: 1 of \d chunks"):
        taken(tmp_path, tmp_path / "x.h5")


def test_hdf5_that_claims_a_chunk_of_gigabytes_takes_no_such_memory(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", libver="earliest") as file:
        dataset = file.create_dataset("features", data=X, chunks=X.shape, compression="gzip")
        size = dataset.id.get_storage_size()
    data = (tmp_path / "x.h5").read_bytes()
    assert data.count(struct.pack("<II", size, 0)) == 1  # of the chunk: its size, and no filter left out
    (tmp_path / "x.h5").write_bytes(data.replace(struct.pack("<II", size, 0), struct.pack("<II", 0xF0000000, 0)))
    with pytest.raises(InputError, match="behind the end of the file"):
        taken(tmp_path, tmp_path / "x.h5")


@pytest.mark.parametrize("kind", ["no UTF-8", "a year that no calendar has"])
def test_parquet_with_texts_that_are_none_is_one_error(tmp_path, kind):
    pa = pytest.importorskip("pyarrow")
    strange = (
        pa.array([b"\x80"] * N).view(pa.string()) if kind == "no UTF-8" else pa.array([2**60] * N, pa.timestamp("ms"))
    )
    pytest.importorskip("pyarrow.parquet").write_table(
        pa.table({"f0": X[:, 0], "site": strange}), tmp_path / "x.parquet"
    )
    with pytest.raises(InputError, match=r"x\.parquet: column 'site' cannot be read"):
        taken(tmp_path, tmp_path / "x.parquet")


def test_hdf5_with_columns(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["embeddings"], file["keys"], file["labels"], file["age"] = X, KEYS, Y, np.arange(N)
    _, file = taken(tmp_path, tmp_path / "x.h5")
    assert (file["keys"], file["labels"], file["meta"]["age"][3]) == (KEYS, Y, "3")


def test_a_feature_file_is_one_already(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(4))
    with pytest.raises(InputError, match="a feature file already"):
        taken(tmp_path, tmp_path / "a.h5")


# What the result is good for


def test_the_same_words_make_the_same_spec(tmp_path, npz):
    np.save(tmp_path / "y.npy", X[:4] + 1)
    one = taken(tmp_path, npz, made_by="uni at 20x")[1]["spec"]
    two = taken(tmp_path, tmp_path / "y.npy", made_by="uni at 20x")[1]["spec"]
    assert one == two
    assert one.backbone == "foreign:uni at 20x"
    assert taken(tmp_path, npz)[1]["spec"] != taken(tmp_path, tmp_path / "y.npy")[1]["spec"]


def test_foreign_files_of_one_spec_are_merged(tmp_path, npz):
    for name, rows in (("p", slice(0, 7)), ("q", slice(5, N))):
        np.savez(tmp_path / f"{name}.npz", X=X[rows], y=Y[rows], keys=KEYS[rows])
        import_features(tmp_path / f"{name}.npz", tmp_path / f"{name}.h5", ImportOptions(made_by="uni"))
    report = merge_features([tmp_path / "p.h5", tmp_path / "q.h5"], tmp_path / "pq.h5")
    assert (report.rows, report.shared) == (N, 2)
    np.testing.assert_array_equal(featx.load_features(tmp_path / "pq.h5").X, X)


@pytest.mark.parametrize("ending", [".npz", ".csv", ".parquet"])
def test_what_was_exported_comes_back(tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    columns = {"folds": [str(i % 3) for i in range(20)], "meta": {"site": ["s"] * 20}}
    samples.extract(tmp_path / "a.h5", samples.manifest(20, **columns), of=samples.spec(logits=False))
    export_features(tmp_path / "a.h5", tmp_path / f"out{ending}")
    import_features(tmp_path / f"out{ending}", tmp_path / "b.h5")
    one, two = featx.load_features(tmp_path / "a.h5", allow_missing=True), featx.load_features(tmp_path / "b.h5")
    for name in ("X", "y", "groups", "keys", "splits", "folds", "sha256"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_an_output_that_is_there(tmp_path, npz):
    import_features(npz, tmp_path / "a.h5")
    with pytest.raises(UsageError, match="--replace"):
        import_features(npz, tmp_path / "a.h5")
    import_features(npz, tmp_path / "a.h5", ImportOptions(made_by="x"), replace=True)
    samples_of_another = samples.manifest(4)
    with (
        pytest.raises(SpecMismatchError, match="backbone: file has foreign:x"),
        samples.open_run(tmp_path / "a.h5", samples_of_another),
    ):
        pass


def test_an_import_that_fails_leaves_nothing(tmp_path):
    rows = [[key, *x] for key, x in zip(KEYS, X, strict=True)]
    rows[-1][1] = "x"
    write_csv(tmp_path / "x.csv", ["key", *(f"f{i}" for i in range(D))], rows)
    with pytest.raises(InputError):
        import_features(tmp_path / "x.csv", tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("x.npz", {"pool": "mean"}, "--pool has a meaning for slides"),
        ("x.npz", {"feature_columns": "f"}, "--feature-columns has a meaning for tables"),
        ("x.npz", {"names": "n.txt"}, "--names has a meaning for rows without keys"),
        ("x.npy", {"columns": {"key": "a"}}, "has no columns to be named"),
        ("x.jpg", {}, "expected .npz, .npy"),
    ],
)
def test_options_that_have_no_meaning(tmp_path, npz, name, options, words):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=words):
        taken(tmp_path, tmp_path / name, **options)


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        taken(tmp_path, tmp_path / "nothing.npz")


def test_matlabs_files_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "features.mat").write_bytes(b"MATLAB")
    with pytest.raises(InputError, match=r"np.save\('features.npy', scipy.io.loadmat\('features.mat'\)"):
        taken(tmp_path, tmp_path / "features.mat")
