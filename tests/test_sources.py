"""Which slides names and tables stand for."""

from pathlib import Path

import pytest

from tests.dicoms import MPP_UM, picture, write_image, write_report, write_slide
from wsi_norm import sources
from wsi_norm.errors import ConfigError
from wsi_norm.sources import SlideSource, find_slides, same_names

REPORT = "Comprehensive SR Storage"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cohort: slides at two depths, a DICOM folder, and files that are no slides."""
    root = tmp_path / "cohort"
    for name in (
        "b.svs",
        "a.SVS",
        "c.ndpi",
        "notes.txt",
        "thumb.png",
        "with space [2].svs",
        "scan_ä_日本.tif",
        "deep/d.mrxs",
        "deep/d/Slidedat.ini",
        "deep/deeper/e.svs",
        "dicom slide/1.dcm",
        "dicom slide/2.dcm",
        "deep/dcm/3.dcm",
    ):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (root / "folder.svs").mkdir()
    return root


def names(sources: list[SlideSource], root: Path) -> list[str]:
    return [source.path.relative_to(root).as_posix() for source in sources]


FLAT = ["a.SVS", "b.svs", "c.ndpi", "dicom slide", "scan_ä_日本.tif", "with space [2].svs"]


# --- files and folders


def test_a_file_is_itself(folder: Path) -> None:
    (source,) = find_slides([str(folder / "b.svs")])
    assert source == SlideSource(folder / "b.svs", "b")


def test_any_file_can_be_named(folder: Path) -> None:
    (source,) = find_slides([str(folder / "thumb.png")])
    assert source == SlideSource(folder / "thumb.png", "thumb")


def test_a_missing_file_is_kept_to_fail_by_itself(folder: Path) -> None:
    found = find_slides([str(folder / "gone.svs"), str(folder / "b.svs")])
    assert names(found, folder) == ["gone.svs", "b.svs"]


def test_a_name_too_long_for_the_disk_is_a_missing_file(folder: Path) -> None:
    long = str(folder / f"{'x' * 300}.svs")
    assert [source.path for source in find_slides([long])] == [Path(long)]


def test_a_folder_is_its_slides(folder: Path) -> None:
    assert names(find_slides([str(folder)]), folder) == FLAT


def test_recursive(folder: Path) -> None:
    found = find_slides([str(folder)], recursive=True)
    assert set(names(found, folder)) == {*FLAT, "deep/d.mrxs", "deep/dcm", "deep/deeper/e.svs"}
    assert len(found) == len(FLAT) + 3


def test_order_is_that_of_the_names_and_sorted_within_a_folder(folder: Path) -> None:
    given = [str(folder / "c.ndpi"), str(folder)]
    assert names(find_slides(given), folder) == ["c.ndpi", *[f for f in FLAT if f != "c.ndpi"]]


def test_a_folder_without_slides(folder: Path) -> None:
    empty = folder / "folder.svs"
    with pytest.raises(ConfigError, match="--recursive") as caught:
        find_slides([str(empty)])
    assert str(empty) in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        find_slides([str(empty)], recursive=True)
    assert "--recursive" not in str(caught.value)


# --- folders of plain images


def filled(folder: Path, *files: str) -> str:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def test_a_folder_of_images_alone_is_its_images(tmp_path: Path) -> None:
    fields = filled(
        tmp_path, "b.JPG", "a.png", ".DS_Store", "._a.png", "Thumbs.db", ".thumbs/x.png"
    )
    for recursive in (False, True):
        assert names(find_slides([fields], recursive=recursive), tmp_path) == ["a.png", "b.JPG"]


def test_images_of_subfolders(tmp_path: Path) -> None:
    fields = filled(tmp_path, "1/a.png", "2/deep/b.png", ".ipynb_checkpoints/a.png")
    assert names(find_slides([fields], recursive=True), tmp_path) == ["1/a.png", "2/deep/b.png"]
    with pytest.raises(ConfigError, match="add --recursive"):
        find_slides([fields])


@pytest.mark.parametrize("other", ["labels.csv", "slides/b.zip", "thumbnail"])
def test_images_beside_other_things_have_to_be_named(tmp_path: Path, other: str) -> None:
    fields = filled(tmp_path, "a.PNG", "b.PNG", "c.jpg", other)
    with pytest.raises(ConfigError) as caught:
        find_slides([fields])
    message = str(caught.value)
    assert message.startswith(f"{fields}: no slides in this folder; ")
    assert "\n" not in message
    pattern = message.split("'")[1]
    assert names(find_slides([pattern]), tmp_path) == ["a.PNG", "b.PNG"]


def test_images_beside_slides_are_none(tmp_path: Path) -> None:
    fields = filled(tmp_path, "a.svs", "a.png", "b.png")
    assert names(find_slides([fields]), tmp_path) == ["a.svs"]


def test_a_folder_of_other_things_names_them(tmp_path: Path) -> None:
    folder = filled(tmp_path, "a.czi", "b.CZI", "notes.txt", "README")
    with pytest.raises(ConfigError) as caught:
        find_slides([folder])
    assert str(caught.value) == (
        f"{folder}: no slides in this folder (2 .czi, 1 without suffix, 1 .txt); "
        "add --recursive to search its subfolders"
    )


def test_nothing_at_all() -> None:
    with pytest.raises(ConfigError, match="--slides-csv"):
        find_slides([])


@pytest.mark.parametrize("where", ["dicom slide", "deep/dcm"])
def test_a_dicom_folder_is_one_slide(folder: Path, where: str) -> None:
    for recursive in (False, True):
        (source,) = find_slides([str(folder / where)], recursive=recursive)
        assert source == SlideSource(folder / where, Path(where).name)


def test_a_dicom_folder_keeps_a_dot_in_its_name(folder: Path) -> None:
    (folder / "deep" / "dcm").rename(folder / "deep" / "1.2.840")
    (source,) = find_slides([str(folder / "deep" / "1.2.840")])
    assert source.name == "1.2.840"


def test_slides_beside_dicom_instances_are_not_lost(folder: Path) -> None:
    (folder / "stray.dcm").write_bytes(b"")
    found = names(find_slides([str(folder)]), folder)
    assert "b.svs" in found


def test_names(folder: Path) -> None:
    for file, name in (
        ("TCGA-A1.2f3.svs", "TCGA-A1.2f3"),
        ("x.ome.tiff", "x.ome"),
        ("noext", "noext"),
        ("scan_ä_日本.tif", "scan_ä_日本"),
    ):
        (source,) = find_slides([str(folder / file)])
        assert source.name == name


# --- DICOM


def found_in(folder: Path, *given: str, recursive: bool = False) -> tuple[list[str], list[str]]:
    """What names below a folder stand for, and what is passed over."""
    said: list[str] = []
    names_ = [str(folder / name) for name in given]
    sources = find_slides(names_, None, recursive, said.append)
    paths = [source.path.relative_to(folder).as_posix() for source in sources]
    return [f"{path} -> {source.name}" for path, source in zip(paths, sources, strict=True)], said


@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ""])
def test_several_dicom_slides_of_a_folder(tmp_path: Path, suffix: str) -> None:
    write_slide(tmp_path / "flat", "b", suffix)
    write_slide(tmp_path / "flat", "a", suffix, levels=3)
    both = [f"flat/{stem}{suffix} -> {stem}" for stem in ("a0", "b0")]
    assert found_in(tmp_path, "flat") == (both, [])
    assert found_in(tmp_path, "") == (both, [])
    assert found_in(tmp_path, "flat/*") == (both, [])
    write_slide(tmp_path / "flat", "c", suffix)  # the others keep their names
    assert found_in(tmp_path, "flat")[0] == [*both, f"flat/c0{suffix} -> c0"]


def test_a_dicom_folder_without_suffixes_is_one_slide(tmp_path: Path) -> None:
    write_slide(tmp_path / "case", "IM000", "")
    assert found_in(tmp_path, "case") == (["case -> case"], [])
    assert found_in(tmp_path, "") == (["case -> case"], [])


def test_files_named_as_uids_keep_their_names(tmp_path: Path) -> None:
    for end in "12":
        write_slide(tmp_path, f"1.2.840.{end}", "", levels=1)
    assert found_in(tmp_path, "") == (["1.2.840.10 -> 1.2.840.10", "1.2.840.20 -> 1.2.840.20"], [])


def test_dicom_and_other_slides_side_by_side(tmp_path: Path) -> None:
    write_slide(tmp_path / "mixed", "m")
    (tmp_path / "mixed" / "a.svs").write_bytes(b"")
    both = ["mixed/a.svs -> a", "mixed/m0.dcm -> m0"]
    assert found_in(tmp_path, "mixed") == (both, [])
    assert found_in(tmp_path, "", recursive=True) == (both, [])


def test_other_dicom_objects_are_passed_over_with_a_word(tmp_path: Path) -> None:
    write_slide(tmp_path / "case")
    write_report(tmp_path / "case" / "annotations.dcm")
    write_report(tmp_path / "reports" / "DICOMDIR")
    for number in range(4):
        write_report(tmp_path / "reports" / f"{number}")
    in_case = f"{tmp_path}/case: passed over, no whole slides: annotations.dcm ({REPORT})"
    elsewhere = (
        f"{tmp_path}/reports: passed over, no whole slides: 0 ({REPORT}), 1 ({REPORT}), "
        f"2 ({REPORT}) and 2 more"
    )
    assert found_in(tmp_path, "case") == (["case -> case"], [in_case])
    slides, said = found_in(tmp_path, "")
    assert (slides, set(said)) == (["case -> case"], {in_case, elsewhere})
    assert found_in(tmp_path, "case/*.dcm") == (["case/level0.dcm -> level0"], [in_case])
    with pytest.raises(ConfigError, match=r"no slides in this folder \(.*: 0 \(Compre"):
        find_slides([str(tmp_path / "reports")])
    with pytest.raises(ConfigError, match=r"no slides \(.*: 0 \(Comprehensive .*\)\): name"):
        find_slides([str(tmp_path / "reports" / "0")])


def test_a_broken_instance_fails_by_itself(tmp_path: Path) -> None:
    write_slide(tmp_path / "case")
    (tmp_path / "case" / "level2.dcm").write_bytes(b"")
    assert found_in(tmp_path, "case") == (["case -> case", "case/level2.dcm -> level2"], [])


@pytest.mark.parametrize(
    "given",
    [
        ["case", "case/level1.dcm"],
        ["case/level0.dcm", "case/level1.dcm", "case"],
        ["case/*.dcm", "case/level0.dcm"],
        ["cas*", "case/level1.dcm"],
        ["case/label.dcm", "case/level1.dcm"],
    ],
)
def test_a_dicom_slide_once_however_it_is_named(tmp_path: Path, given: list[str]) -> None:
    series = write_slide(tmp_path / "case")
    write_image(tmp_path / "case" / "label.dcm", picture(128), MPP_UM, series, flavour="LABEL")
    (slide,), said = found_in(tmp_path, *given)
    assert slide.split(" -> ")[1] in {"case", "level0", "level1"}
    assert said == []


def test_rows_of_a_table_about_one_dicom_slide(tmp_path: Path) -> None:
    write_slide(tmp_path / "case")
    table = tmp_path / "t.csv"
    files = [tmp_path / "case" / f"level{level}.dcm" for level in range(2)]
    table.write_text(f"wsi,mpp,name\n{files[0]},,\n{files[1]},,\n", encoding="utf-8")
    (source,) = find_slides([str(tmp_path / "case")], table)
    assert source == SlideSource(files[0], "level0")
    table.write_text(f"wsi,mpp,name\n{files[0]},,a\n{files[1]},,b\n", encoding="utf-8")
    assert [source.name for source in find_slides([], table)] == ["a", "b"]


# --- patterns


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.svs", {"b.svs", "folder.svs", "with space [2].svs"}),
        ("?.svs", {"b.svs"}),
        ("[bc].*", {"b.svs", "c.ndpi"}),
        ("with space*", {"with space [2].svs"}),
        ("*日本*", {"scan_ä_日本.tif"}),
        ("dicom*", {"dicom slide"}),
        ("**/?.svs", {"b.svs", "deep/deeper/e.svs"}),
        ("deep/**/*.mrxs", {"deep/d.mrxs"}),
        ("with space [[]2].svs", {"with space [2].svs"}),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: set[str]) -> None:
    found = names(find_slides([str(folder / pattern)]), folder)
    assert set(found) == expected
    assert found == sorted(found)


def test_brackets_in_an_existing_name_are_no_pattern(folder: Path) -> None:
    (folder / "with space 2.svs").write_bytes(b"")  # what the pattern would match
    found = find_slides([str(folder / "with space [2].svs")])
    assert names(found, folder) == ["with space [2].svs"]
    assert found[0].name == "with space [2]"


def test_a_folder_with_brackets_in_its_name(folder: Path) -> None:
    folder.rename(folder.with_name("cohort [1]"))
    moved = folder.with_name("cohort [1]")
    assert names(find_slides([str(moved)]), moved) == FLAT


def test_a_pattern_without_a_match_names_itself(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file matches .*\*\.czi"):
        find_slides([str(folder / "*.czi")])


# --- twice


def test_each_slide_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    given = ["b.svs", str(folder / "b.svs"), "?.svs", "./b.svs"]
    (source,) = find_slides(given)
    assert source.path.absolute() == folder / "b.svs"


def test_a_row_of_the_table_adds_to_a_named_slide(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"wsi,mpp\n{folder / 'b.svs'},0.25\n", encoding="utf-8")
    (source,) = find_slides([str(folder / "b.svs")], table)
    assert source.mpp_um == 0.25


def test_same_names(folder: Path) -> None:
    sources = [
        SlideSource(folder / "b.svs", "b"),
        SlideSource(folder / "x" / "B.tif", "B"),
        SlideSource(folder / "a.svs", "a"),
    ]
    assert same_names(sources) == {"b"}
    assert same_names(sources[1:]) == set()


# --- tables


def read(table: Path, text: str | bytes) -> list[SlideSource]:
    table.write_bytes(text.encode() if isinstance(text, str) else text)
    return find_slides([], table)


def refusal(table: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(table, text)
    message = str(caught.value)
    assert message.startswith(f"{table}: ")
    assert "\n" not in message
    return message


@pytest.fixture
def table(folder: Path) -> Path:
    return folder / "slides.csv"


def test_a_table_with_every_column(table: Path, folder: Path) -> None:
    (folder / "b mask.png").write_bytes(b"")
    (source,) = read(
        table,
        "wsi,mpp,mask_path,roi_path,name,stain\nb.svs,0.25,b mask.png,/abs/b.geojson,case 1,HE\n",
    )
    assert source == SlideSource(
        folder / "b.svs", "case 1", 0.25, folder / "b mask.png", Path("/abs/b.geojson")
    )


def test_aliases_of_columns(table: Path, folder: Path) -> None:
    (source,) = read(table, "image_path,spacing_at_level_0\nb.svs,0.5\n")
    assert source == SlideSource(folder / "b.svs", "b", 0.5)


def test_a_table_of_a_spreadsheet(table: Path, folder: Path) -> None:
    rows = [b"wsi,mpp", b'"with space [2].svs",0.5', "scan_ä_日本.tif, ".encode()]
    found = read(table, b"\xef\xbb\xbf" + b"\r\n".join(rows))
    assert [(source.path, source.mpp_um) for source in found] == [
        (folder / "with space [2].svs", 0.5),
        (folder / "scan_ä_日本.tif", None),
    ]


def test_spaces_around_column_names(table: Path, folder: Path) -> None:
    (source,) = read(table, "wsi, mpp\nb.svs, 0.5\n")
    assert source == SlideSource(folder / "b.svs", "b", 0.5)


def test_paths_are_relative_to_here_or_else_to_the_table(
    table: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "wsi\nb.svs\ngone.svs\n"
    assert [source.path for source in read(table, text)] == [folder / "b.svs", Path("gone.svs")]
    here = tmp_path / "here"
    here.mkdir()
    (here / "b.svs").write_bytes(b"")
    monkeypatch.chdir(here)
    assert read(table, text)[0].path == Path("b.svs")


def test_a_folder_in_a_table_is_a_dicom_slide(table: Path, folder: Path) -> None:
    (source,) = read(table, "wsi\ndicom slide\n")
    assert source == SlideSource(folder / "dicom slide", "dicom slide")


def test_rows_longer_and_shorter_than_the_header(table: Path, folder: Path) -> None:
    """A comma in a path, or a lost one: what follows would be taken for something else."""
    for row in ("0.5,b,svs", "b.svs"):
        assert "line 2 has" in refusal(table, f"mpp,wsi\n{row}\n,c.ndpi\n\n")


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("mmp", "mpp"),
        ("MPP_um", "mpp"),
        ("spacing", "spacing_at_level_0"),
        ("mask", "mask_path"),
        ("maskpath", "mask_path"),
        ("roi", "roi_path"),
        ("nmae", "name"),
    ],
)
def test_a_misspelt_column_is_not_taken_for_a_note(table: Path, column: str, meant: str) -> None:
    assert refusal(table, f"wsi,{column}\nb.svs,\n") == (
        f"{table}: unknown column {column!r}; did you mean {meant!r}? Rename it"
    )


def test_notes_of_ones_own(table: Path, folder: Path) -> None:
    """Of these, msi is near to wsi and mpp_x to mpp; both are there already."""
    notes = "wsi,mpp,stain,msi,mpp_x,filename,report_path,,\nb.svs,0.5,HE,high,0.5,b,r.pdf,1,2\n"
    assert read(table, notes) == [SlideSource(folder / "b.svs", "b", 0.5)]


@pytest.mark.parametrize("two", ["mpp,spacing_at_level_0", "image_path,WSI", "wsi,Wsi"])
def test_two_columns_of_one_meaning(table: Path, two: str) -> None:
    first, second = two.split(",")
    message = refusal(table, f"{two},wsi\n1,2,3\n" if "mpp" in two else f"{two}\n1,2\n")
    assert f"the columns {first!r} and {second!r} say the same" in message


@pytest.mark.parametrize("table_text", ["wsi;mpp\nb.svs;0,25\n", 'wsi,mpp\nb.svs,"0,25"\n'])
def test_a_decimal_comma(table: Path, folder: Path, table_text: str) -> None:
    assert read(table, table_text) == [SlideSource(folder / "b.svs", "b", 0.25)]


@pytest.mark.parametrize("nothing", ["", "NA", "N/A", "#N/A", "nan", "NaN", "None", "null", "-"])
def test_words_for_nothing(table: Path, folder: Path, nothing: str) -> None:
    text = f"wsi,mpp,mask_path,roi_path,name\nb.svs,{','.join([nothing] * 4)}\n,,,,\n"
    assert read(table, text) == [SlideSource(folder / "b.svs", "b")]
    assert "line 2 names no slide" in refusal(table, f"mpp,wsi\n0.5,{nothing}\n")


def test_a_row_that_is_commented_out(table: Path, folder: Path) -> None:
    found = read(table, "# first batch\nwsi,mpp\n#c.ndpi,0.25\nb.svs,0.5\n")
    assert found == [SlideSource(folder / "b.svs", "b", 0.5)]


@pytest.mark.parametrize("mpp", ["about 0.5", "0,5,5", "0.5 um", "1,000.5"])
def test_an_mpp_that_is_no_number_names_its_line(table: Path, mpp: str) -> None:
    message = refusal(table, f'wsi,mpp\nb.svs,0.5\nc.ndpi,"{mpp}"\n')
    assert "line 3" in message
    assert mpp in message


@pytest.mark.parametrize("text", ["", "path,mpp\nb.svs,0.5\n", "b.svs\n", "b.svs\nc.ndpi\n"])
def test_a_missing_column(table: Path, text: str) -> None:
    assert "a column 'wsi' (or 'image_path')" in refusal(table, text)


def test_what_stands_in_place_of_a_missing_column_is_named(table: Path) -> None:
    message = refusal(table, "file;mpp\nb.svs;0.5\n")
    assert message.endswith("but its first line names 'file', 'mpp'")
    assert "unknown column 'wsi_path'; did you mean 'wsi'?" in refusal(table, "wsi_path\nb.svs\n")


def test_a_row_without_a_slide_names_its_line(table: Path) -> None:
    assert "line 3" in refusal(table, "wsi,mpp\nb.svs,0.5\n,0.5\n")
    assert "line 2" in refusal(table, "mpp,wsi\n0.5,\n")


@pytest.mark.parametrize("name", ["a/b", "../b", "/b", "b/", "."])
def test_a_name_must_not_leave_the_output_folder(table: Path, name: str) -> None:
    message = refusal(table, f"wsi,name\nb.svs,{name}\n")
    assert "line 2" in message
    assert repr(name) in message


def test_unreadable_tables(table: Path, folder: Path) -> None:
    assert "not UTF-8" in refusal(table, b"wsi\n\xff\xfe.svs\n")
    for path in (folder / "absent.csv", folder):
        with pytest.raises(ConfigError, match="cannot read") as caught:
            find_slides([], path)
        assert str(path) in str(caught.value)


def test_a_newline_inside_quotes_belongs_to_the_cell(table: Path) -> None:
    found = read(table, 'wsi,stain\nb.svs,"H\n&E"\nc.ndpi,HE\n')
    assert [source.name for source in found] == ["b", "c"]


@pytest.mark.parametrize("mpp", ["0", "-0.5", "inf", "1e999"])
def test_an_mpp_that_no_slide_has(tmp_path: Path, mpp: str) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(f"wsi,mpp\na.svs,{mpp}\n")
    with pytest.raises(ConfigError, match=rf"line 2: mpp '{mpp}' is no size of a pixel"):
        find_slides([], table)


@pytest.mark.parametrize("name", ["a\0b.svs", "http://[::1/a.svs"])
def test_what_can_be_no_name_of_a_file(name: str) -> None:
    with pytest.raises(ConfigError):
        find_slides([name])


def test_what_does_not_answer_is_kept_and_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a good slide: a file of a folder, a name, a row, a mask of a row."""
    (tmp_path / "in").mkdir()
    for name in ("good.svs", "dead.svs", "other.svs", "masked.svs"):
        (tmp_path / "in" / name).write_bytes(b"")
    table = tmp_path / "slides.csv"
    table.write_text("wsi,mask_path\nin/masked.svs,dead.png\nin/other.svs,\n")
    monkeypatch.setattr(
        sources, "silent", lambda places: {p for p in places if p.name.startswith("dead")}
    )
    found = find_slides([str(tmp_path / "in"), str(tmp_path / "dead.tif")], table)
    silent = {source.path.name: source.silent for source in found}
    assert silent == {
        "good.svs": None,
        "other.svs": None,
        "dead.svs": tmp_path / "in" / "dead.svs",
        "dead.tif": tmp_path / "dead.tif",
        "masked.svs": silent["masked.svs"],
    }
    assert silent["masked.svs"] is not None
    assert silent["masked.svs"].name == "dead.png"
