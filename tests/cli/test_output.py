"""How messages, names and counts look."""

import io
import json
import sys

import pytest

from featx.cli import output
from featx.cli.heads import command


def test_long_lines_break_between_words_and_keep_their_indent():
    text = "short\n    " + "word " * 40 + "/a/path/" + "x" * 120
    lines = output.wrapped(text).split("\n")
    assert lines[0] == "short"
    assert all(line.startswith("    ") for line in lines[1:])
    assert all(len(line) <= output.COLUMNS for line in lines[:-1])
    assert lines[-1].strip() == "/a/path/" + "x" * 120


def test_wrapping_changes_nothing_but_the_breaks():
    text = "error: " + "a-name-with-hyphens, " * 20
    assert output.wrapped(text).split() == text.split()
    assert output.wrapped("  two  spaces   stay") == "  two  spaces   stay"


def test_names_are_shown_in_one_line():
    assert output.printable("a\nb\x1b[31m\udcff ☃") == r"a\nb\x1b[31m\udcff ☃"


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (2000, "class", "2,000 classes"),
        (1, "class", "1 class"),
        (2, "search", "2 searches"),
    ],
)
def test_counts_are_english(number, noun, words):
    assert output.count(number, noun) == words


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_can_be_read_whatever_the_encoding_of_stdout(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace"))
    output.print_json({"é☃": "naïve"})
    sys.stdout.flush()
    assert json.loads(raw.getvalue().decode(encoding if encoding != "ascii" else "utf-8")) == {"é☃": "naïve"}


def test_a_command_to_copy_is_written_as_the_user_called_featx(monkeypatch):
    monkeypatch.delenv("FEATX_COMMAND", raising=False)
    assert output.to_type("featx info a.h5") == "featx info a.h5"
    monkeypatch.setenv("FEATX_COMMAND", "bin/featx")
    assert output.to_type("featx info a.h5") == "bin/featx info a.h5"


def test_the_table_of_heads_fits_a_terminal(capsys):
    command.main([], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 9
    assert max(map(len, lines)) <= 100
