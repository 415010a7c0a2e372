"""Which files a URI stands for, in which order, and what their folders say."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ai.adapters.datasets.listing import format_of, glob_pattern, list_dataset
from airflow_provider_ai.exceptions import EmptyDatasetError, SpecError, UnreadableFileError
from tests.adapters.datasets.data import settings_of, touch_later, write_text

TREE = [
    "a.csv",
    "b.csv",
    "sub/c.csv",
    "sub/deep/d.csv",
    "sub/_temporary/e.csv",
    ".hidden/f.csv",
    "_SUCCESS",
    ".b.csv.crc",
    "sub/README.txt",
    "ü ber/g h.csv",
]
VISIBLE = ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv", "ü ber/g h.csv"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in TREE:
        write_text(root / name, "id\n1\n")
    return root


def found(root: Path, uri: str | Path, **changes: str) -> list[str]:
    listing = list_dataset(settings_of(uri, **changes))
    return [str(Path(file.path).relative_to(root)) for file in listing.files]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("", VISIBLE),  # a folder: everything below it
        ("a.csv", ["a.csv"]),  # a file
        ("*.csv", ["a.csv", "b.csv"]),  # a star stays within a folder
        ("?.csv", ["a.csv", "b.csv"]),
        ("[b-z].csv", ["b.csv"]),
        ("[!a].csv", ["b.csv"]),
        ("**/*.csv", VISIBLE),
        ("**", VISIBLE),
        ("sub/**", ["sub/c.csv", "sub/deep/d.csv"]),
        ("**/d.csv", ["sub/deep/d.csv"]),
        ("*/deep/*.csv", ["sub/deep/d.csv"]),
        ("s*", ["sub/c.csv", "sub/deep/d.csv"]),  # a folder that matches stands for what is below it
        ("ü*/*", ["ü ber/g h.csv"]),
        ("sub/_temporary/*.csv", ["sub/_temporary/e.csv"]),  # asked for by name
    ],
)
def test_what_a_uri_stands_for(tree: Path, glob: str, expected: list[str]) -> None:
    assert found(tree, tree / glob) == expected


def test_a_file_asked_for_by_name_may_be_hidden(tree: Path) -> None:
    write_text(tree / "_x.csv", "id\n1\n")
    assert found(tree, tree / "_x.csv") == ["_x.csv"]


def test_a_name_that_exists_is_not_a_glob(tree: Path) -> None:
    write_text(tree / "[b].csv", "id\n1\n")
    assert found(tree, tree / "[b].csv") == ["[b].csv"]


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("a.csv", "axcsv", False),  # a dot is a dot
        ("*.csv", "a\nb.csv", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a**b", "axxb", True),
        ("a**b", "ax/xb", False),
        ("[]]", "]", True),
        ("[a^]", "^", True),
        ("[!/]x", "/x", False),
        ("(a|b)+", "(a|b)+", True),
        ("a[", "a[", True),  # not closed: a plain character
    ],
)
def test_globs(glob: str, path: str, matches: bool) -> None:
    assert bool(glob_pattern(glob).fullmatch(path)) is matches


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x/a.parquet", "parquet"),
        ("a.PQ", "parquet"),
        ("a.snappy.parquet", "parquet"),
        ("a.csv", "csv"),
        ("a.csv.gz", "csv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson.zst", "jsonl"),
        ("a.json", "jsonl"),
        ("a.parquet.gz", None),  # Parquet cannot be read from a compressed file
        ("a.gz", None),
        ("x.csv/part-0", None),
        ("part-0", None),
    ],
)
def test_the_format_a_name_tells(name: str, kind: str | None) -> None:
    assert format_of(name) == kind


def test_an_explicit_format_takes_every_visible_file(tree: Path) -> None:
    assert found(tree, tree / "sub", format="csv") == ["sub/README.txt", "sub/c.csv", "sub/deep/d.csv"]


def test_a_mix_of_formats_is_refused(tree: Path) -> None:
    write_text(tree / "x.jsonl", "{}")
    with pytest.raises(SpecError, match=r"mixes csv and jsonl files: set format.*\.csv, .*/x\.jsonl\)"):
        found(tree, tree)


def test_names_that_tell_no_format_are_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "part-0001", "id\n1\n")
    with pytest.raises(SpecError, match="tell no format"):
        found(tmp_path, tmp_path)
    assert found(tmp_path, tmp_path, format="csv") == ["part-0001"]


@pytest.mark.parametrize("uri", ["missing", "missing/*.csv", "empty", "empty/**", "*.parquet"])
def test_nothing_there(tmp_path: Path, uri: str) -> None:
    (tmp_path / "empty").mkdir()
    write_text(tmp_path / "empty" / "_SUCCESS", "")
    with pytest.raises(EmptyDatasetError, match="has no file"):
        found(tmp_path, tmp_path / uri)


def test_hive_folders_are_decoded(tmp_path: Path) -> None:
    write_text(tmp_path / "dt=2024-01-01/site=St.%20Mary%2FE%3D1/na=__HIVE_DEFAULT_PARTITION__/=x/k=v.csv", "id\n1\n")
    listing = list_dataset(settings_of(tmp_path))
    assert listing.files[0].partition_values == (("dt", "2024-01-01"), ("site", "St. Mary/E=1"))


def test_a_loop_of_links_ends(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "again").symlink_to(tree / "sub")
    assert sorted(Path(name).name for name in found(tree, tree)) == sorted(Path(name).name for name in VISIBLE)


def test_a_linked_file_counts(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tree / "a.csv")
    assert found(tmp_path, tmp_path / "link.csv") == ["link.csv"]
    assert "link.csv" in found(tmp_path, tmp_path)


def test_a_broken_link_is_an_error_and_not_a_loss(tree: Path) -> None:
    (tree / "gone.csv").symlink_to(tree / "nowhere")
    with pytest.raises(UnreadableFileError, match=r"gone\.csv: broken link"):
        found(tree, tree)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "a\udcff.csv", "id\n1\n")
    with pytest.raises(UnreadableFileError, match="not UTF-8"):
        found(tmp_path, tmp_path)


def test_the_digest_changes_with_the_files_and_not_with_the_glob(tree: Path) -> None:
    before = list_dataset(settings_of(tree)).digest
    assert list_dataset(settings_of(f"{tree}/**")).digest == before
    touch_later(tree / "a.csv")
    assert list_dataset(settings_of(tree)).digest != before
