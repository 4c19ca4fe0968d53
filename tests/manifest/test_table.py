"""A CSV or TSV table as a manifest: dialects, columns, and one clear error with its line for everything wrong."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import ImageDecodeError, ManifestError, UsageError
from featx.manifest.source import SourceOptions, read_bytes, read_source


@pytest.fixture
def read(tmp_path):
    def reader(text, name="table.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_source(path, SourceOptions(**options))

    return reader


def refused(read, text, match, *, line, **options):
    with pytest.raises(ManifestError, match=match) as caught:
        read(text, **options)
    assert caught.value.line == line
    assert caught.value.exit_code == 4
    assert "table.csv" in str(caught.value)


# ---- what is read


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["table.csv", "TABLE.TSV"])
def test_comma_semicolon_or_tab_with_or_without_byte_order_mark(read, separator, end, mark, name):
    lines = ["path,label,group,split,fold", "a/1.jpg,ants,p1,train,0", "a/2.jpg,bees,p2,dev,1"]
    manifest = read(mark + end.join(line.replace(",", separator) for line in lines) + end, name)
    assert manifest.keys == ["a/1.jpg", "a/2.jpg"]
    assert manifest.labels == ["ants", "bees"]
    assert manifest.groups == ["p1", "p2"]
    assert manifest.splits == ["train", "val"]
    assert manifest.folds == ["0", "1"]
    assert manifest.group_source == "column group"
    assert manifest.meta == {}


def test_rows_stay_in_the_order_of_their_lines(read):
    assert read("path\nb.jpg\na.jpg\nc.jpg\n").keys == ["b.jpg", "a.jpg", "c.jpg"]


def test_na_is_text_and_only_an_empty_label_is_unlabelled(read):
    manifest = read("path,label\n1.jpg,NA\n2.jpg,nan\n3.jpg,\n4.jpg,None\n5.jpg,01\n6.jpg, \n")
    assert manifest.labels == ["NA", "nan", "", "None", "01", ""]


def test_quoted_fields_may_hold_separators_quotes_and_line_ends(read):
    manifest = read('path,label,note\n"a,b.jpg","say ""x""","two\nlines"\n2.jpg,y,z\n')
    assert manifest.keys == ["a,b.jpg", "2.jpg"]
    assert manifest.labels == ['say "x"', "y"]
    assert manifest.meta == {"note": ["two\nlines", "z"]}


def test_other_columns_are_kept_as_text(read):
    manifest = read(",age,path,Label\n0,041,1.jpg,x\n1,,2.jpg,y\n")
    assert manifest.meta == {"column 1": ["0", "1"], "age": ["041", ""]}
    assert manifest.labels == ["x", "y"]


def test_columns_are_found_by_name_in_any_case_and_by_other_names_on_request(read):
    text = "File,Diagnosis,Patient,Part,K\n1.jpg,x,p,Test,3\n"
    options = {"path_column": "File", "label_column": "diagnosis", "group_column": "Patient"}
    manifest = read(text, **options, split_column="Part", fold_column="K")
    assert (manifest.keys, manifest.labels, manifest.groups) == (["1.jpg"], ["x"], ["p"])
    assert (manifest.splits, manifest.folds, manifest.meta) == (["test"], ["3"], {})
    assert manifest.group_source == "column Patient"


def test_an_exact_name_wins_over_one_in_another_case(read):
    assert read("path,LABEL,label\n1.jpg,a,b\n").labels == ["b"]


def test_paths_are_relative_to_the_table_or_to_root(read, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.jpg").write_bytes(b"one")
    beside = read("path\nimages/1.jpg\n")
    assert (beside.keys, beside.root) == (["images/1.jpg"], str(tmp_path))
    below = read("path\n1.jpg\n", root=str(tmp_path / "images"))
    assert below.keys == ["1.jpg"]
    assert read_bytes(beside, 0) == read_bytes(below, 0) == b"one"


def test_an_absolute_path_below_the_root_is_read_by_its_key(read, tmp_path):
    assert read(f"path\n{tmp_path}/a/1.jpg\n").keys == ["a/1.jpg"]
    assert read("path\n/anywhere/1.jpg\n", root="/").keys == ["anywhere/1.jpg"]


def test_paths_of_windows_and_with_dots_are_the_same_key(read):
    assert read("path\na\\b\\1.jpg\n./a//2.jpg\na/c/../3.jpg\n").keys == ["a/b/1.jpg", "a/2.jpg", "a/3.jpg"]


def test_a_missing_file_is_a_failed_row_and_not_an_error_of_the_table(read):
    manifest = read("path\nnowhere.jpg\n")
    with pytest.raises(ImageDecodeError) as caught:
        read_bytes(manifest, 0)
    assert (caught.value.reason, caught.value.key) == ("missing", "nowhere.jpg")


def test_a_header_of_one_column_and_blank_lines_are_fine(read):
    assert read("path\n\n1.jpg\n\n\n2.jpg").keys == ["1.jpg", "2.jpg"]


FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t"),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, separator, mark, end):
    buffer = io.StringIO(newline="")
    # Python below 3.13 leaves "\r" unquoted where lines end with "\n".
    quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(["path", "label", "note"])
    writer.writerows([f"{i}.jpg", *row] for i, row in enumerate(rows))
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_bytes(mark + buffer.getvalue().encode())
    manifest = read_source(path)
    assert manifest.labels == [label.strip() for label, _ in rows]
    assert manifest.meta["note"] == [note for _, note in rows]


# ---- what is refused


def test_a_missing_path_column_names_the_columns_and_the_option(read):
    refused(read, "file,label\n1.jpg,x\n", "no column 'path'.*'file', 'label'.*--path-column", line=1)


def test_a_table_without_header_says_what_it_expects(read):
    refused(read, "1.jpg,ants\n2.jpg,bees\n", "no column 'path' in the header, which has '1.jpg', 'ants'", line=1)


@pytest.mark.parametrize("role", ["label", "group", "split", "fold"])
def test_a_column_that_was_named_must_be_there(read, role):
    refused(read, "path\n1.jpg\n", f"no column 'other'.*--{role}-column", line=1, **{f"{role}_column": "other"})


def test_two_columns_of_one_name(read):
    refused(read, "path,label,label\n1.jpg,x,y\n", "two columns are named 'label'", line=1)


def test_names_that_differ_only_in_case_are_not_guessed_between(read):
    refused(read, "PATH,Path\n1.jpg,2.jpg\n", "no column 'path'", line=1)
    refused(read, "path,LABEL,Label\n1.jpg,x,y\n", "no column 'label'", line=1)


@pytest.mark.parametrize("again", ["a/1.jpg", "./a/1.jpg", "a\\1.jpg"])
def test_a_duplicate_key_names_both_lines(read, again):
    refused(read, f"path\na/1.jpg\n2.jpg\n{again}\n", "'a/1.jpg' is already in line 2", line=4)


def test_a_duplicate_after_a_quoted_line_end_has_the_right_line(read):
    refused(read, 'path,note\n1.jpg,"a\nb"\n\n1.jpg,c\n', "already in line 2", line=5)


def test_a_wrong_encoding_names_the_line(read):
    refused(read, "path,label\n1.jpg,ants\n2.jpg,café\n".encode("latin-1"), "0xe9 is not UTF-8", line=3)
    refused(read, "path,label\n1.jpg,x\n".encode("utf-16"), "not UTF-8", line=1)


@pytest.mark.parametrize("path", ["../1.jpg", "a/../../1.jpg", "..", "/etc/passwd", "..\\1.jpg"])
def test_a_path_that_climbs_out_of_the_root_by_its_text(read, path):
    refused(read, f"path\n1.jpg\n{path}\n", "is not below .*--root", line=3)


def test_a_root_that_only_begins_like_the_path_is_not_above_it(read, tmp_path):
    refused(read, f"path\n{tmp_path}-other/1.jpg\n", "is not below", line=2)


@pytest.mark.parametrize("path", ['""', "."])
def test_an_empty_path(read, path):
    refused(read, f"path,label\n1.jpg,x\n{path},y\n", "no path", line=3)


@pytest.mark.parametrize("row", ["2.jpg", "2.jpg,x,y"])
def test_a_line_with_another_number_of_fields(read, row):
    refused(read, f"path,label\n1.jpg,x\n{row}\n", "fields, but the header has 2", line=3)


def test_an_unknown_split(read):
    refused(read, "path,split\n1.jpg,train\n2.jpg,holdout\n", "'holdout' is not a split; expected train", line=3)


def test_a_quote_that_is_never_closed(read):
    refused(read, 'path,label\n1.jpg,x\n2.jpg,"y\n', "not a table", line=3)


def test_a_path_with_a_nul(read):
    refused(read, "path\na\0.jpg\n", "is not a path", line=2)


@pytest.mark.parametrize("text", ["", "\ufeff", "\n\n"])
def test_an_empty_table(read, text):
    refused(read, text, "the table is empty; its first line must name the columns", line=None)


def test_a_table_with_nothing_below_its_header(read):
    refused(read, "path,label\n", "no samples", line=None)


@pytest.mark.parametrize("options", [{"layout": "flat"}, {"group_column": "path", "group_regex": "(.)"}])
def test_options_that_do_not_go_together(read, options):
    with pytest.raises(UsageError):
        read("path\n1.jpg\n", **options)
