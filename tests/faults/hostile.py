"""What strangers may hand over: checkpoints, YAML, tables, regions, masks, names, pipes.

Each is right, or refused in one line that names the file, in bounded time and memory. None runs
code.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageDraw

from tests.faults.outcomes import Outcome
from tests.faults.trials import Say, command_line, tried
from tests.faults.truth import Go, write_slide

LIMIT, RUN_LIMIT = 30.0, 120.0
MOST_MB = 3000

Write = Callable[[Path], None]
Call = Callable[[Path], Any]


def campaign(go: Go) -> Iterator[Outcome]:
    small = write_slide(go.place("hostile_slide") / "good.svs", 3, 768, 768)
    for fault, (call, files) in CATALOGUE.items():
        chosen = {name: write for name, write in files.items() if name not in SLOW}
        for name, write in [*chosen.items()][:: go.times(1, 4)]:
            yield refused(go, fault, name, write, call)
        if not go.quick:
            for name in SLOW & files.keys():
                yield refused(go, fault, name, files[name], call)
    for points in (10_000, 100_000, 1_000_000) if not go.quick else (10_000,):
        yield done(go, "regions of many points", drawn_right, points)
    for edge in (12_000, 30_000) if not go.quick else (4_000,):
        yield done(go, "large masks", masked_right, edge)
    yield from runs(go, small)


def refused(go: Go, fault: str, name: str, write: Write, call: Call) -> Outcome:
    """One line of ours that names the file."""
    file = go.place("hostile") / name
    write(file)
    run = tried(refusal, call, file, limit=LIMIT)
    why = problem(run.error, run.value, run.peak_mb, run.hang)
    if (file.parent / "code_ran").exists():
        return Outcome(fault, False, silent=True, why=f"{name}: code of it ran")
    return Outcome(fault, not why, hang=run.hang, why=f"{name}: {why}" if why else "")


def problem(error: str, value: str, peak_mb: float, hang: bool) -> str:
    if hang:
        return "no end"
    if error:
        return error.strip().splitlines()[-1][:300]
    return value or (f"{peak_mb:.0f} MB" if peak_mb > MOST_MB else "")


def refusal(say: Say, call: Call, file: Path) -> str:
    """What is wrong with how it is refused; ''."""
    from wsi_norm.errors import WsiNormError

    os.chdir(file.parent)
    try:
        call(file)
    except WsiNormError as refusal:
        text = str(refusal)
        one_line = "\n" not in text and text.isprintable() and len(text) < 1000
        named = file.name in text or "/a" in text
        return "" if named and one_line else f"refused with: {text[:300]!r}"
    return "taken without a word"


def done(go: Go, fault: str, function: Callable[..., str], *arguments: Any) -> Outcome:
    """A child that says what is wrong; ''."""
    run = tried(function, go.place("hostile"), *arguments, limit=LIMIT)
    why = problem(run.error, run.value, run.peak_mb, run.hang)
    return Outcome(fault, not why, hang=run.hang, why=f"{arguments}: {why}" if why else "")


# --- files


class Code:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch code_ran",)


def text(content: str) -> Write:
    return lambda file: void(file.write_text(content))


def data(content: bytes) -> Write:
    return lambda file: void(file.write_bytes(content))


def void(_: object) -> None:
    return None


def pickled(protocol: int) -> Write:
    return data(pickle.dumps({"wsi_norm": Code()}, protocol))


def saved_code(file: Path) -> None:
    torch.save({"state_dict": Code()}, file)


def zipped_code(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Code()))
        archive.writestr("archive/version", "3")


def tensors(header: dict[str, Any] | bytes, length: int | None = None, size: int = 0) -> Write:
    """A .safetensors file with such a header, and so many (sparse) bytes of data behind it."""

    def write(file: Path) -> None:
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        number = len(head) if length is None else length
        file.write_bytes(number.to_bytes(8, "little") + head)
        os.truncate(file, file.stat().st_size + size)

    return write


def numbers(name: str, value: float) -> Write:
    """The packaged checkpoint `paper` with other numbers in the first tensor of such a name."""

    def write(file: Path) -> None:
        import wsi_norm.lstainnorm

        source = Path(wsi_norm.lstainnorm.__file__).with_name("paper.safetensors")
        content = source.read_bytes()
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        state = safetensors.torch.load(content)
        key = next(key for key in sorted(state) if name in key)
        state[key] = torch.full_like(state[key], value)
        file.write_bytes(safetensors.torch.save(state, head["__metadata__"]))

    return write


def fifo(file: Path) -> None:
    os.mkfifo(file)


def endless(file: Path) -> None:
    file.symlink_to("/dev/zero")


def folder(file: Path) -> None:
    file.mkdir()


def loop(file: Path) -> None:
    file.symlink_to(file)


NO_FILES: dict[str, Write] = {"fifo": fifo, "endless": endless, "folder": folder, "loop": loop}


def no_files(suffix: str) -> dict[str, Write]:
    return {f"{name}{suffix}": write for name, write in NO_FILES.items()}


def picture(mode: str, content: str = "PNG") -> Write:
    def write(file: Path) -> None:
        Image.new(mode, (64, 64)).save(file, content)

    return write


def cut_picture(file: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(
        buffer, "PNG"
    )
    file.write_bytes(buffer.getvalue()[: buffer.tell() // 2])


def bomb(file: Path) -> None:
    """A PNG of some 100 kB that says 3.6 gigapixels."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(50_000_000))
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


# --- what takes them


def checkpoint(file: Path) -> Any:
    from wsi_norm import load_checkpoint

    return load_checkpoint(file)


def settings(file: Path) -> Any:
    from wsi_norm.config import run_config

    return run_config(file)


def slides(file: Path) -> Any:
    """By the command line, for what it prints: refused at once, or as slides that are not there."""
    from wsi_norm.errors import ConfigError

    output = file.parent / "out"
    arguments = ["run", "--slides-csv", file, "-o", output, "-n", 0, "--device", "cpu", "-q"]
    status, lines = command_line(print, arguments)
    assert status in {1, 2}, (status, lines)
    told = [line for line in lines if line.startswith("error: ")]
    assert told == lines, lines
    assert "a bug" not in told[0], lines
    raise ConfigError(told[0])


def regions(file: Path) -> Any:
    from wsi_norm.tissue import read_geojson

    return read_geojson(file)


def mask(file: Path) -> Any:
    from wsi_norm.tissue import read_mask_image

    return read_mask_image(file, (100, 100), (2000, 2000))


def polygon(*ring: object) -> str:
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return json.dumps({"type": "Feature", "geometry": geometry})


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
)

CATALOGUE: dict[str, tuple[Call, dict[str, Write]]] = {
    "hostile checkpoints": (
        checkpoint,
        {
            **{f"pickle_{p}{s}": pickled(p) for p in range(6) for s in (".pt", ".pth", ".bin")},
            **{f"pickle_{p}.safetensors": pickled(p) for p in range(6)},
            "saved.pt": saved_code,
            "saved.safetensors": saved_code,
            "zip.pt": zipped_code,
            "empty.pt": data(b""),
            "noise.safetensors": data(np.random.default_rng(0).bytes(10_000)),
            "text.pt": text("<html>not found</html>"),
            "length.safetensors": tensors({}, 2**63),
            "long.safetensors": tensors({}, 10**9),
            "deep.safetensors": tensors(b"[" * 200_000),
            "list.safetensors": tensors(b"[]"),
            "offsets.safetensors": tensors(
                {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 2**40]}}
            ),
            "shape.safetensors": tensors(
                {"a": {"dtype": "F32", "shape": [2**62, 2], "data_offsets": [0, 8]}}, size=8
            ),
            "sparse_4_GB.safetensors": tensors(
                {"a": {"dtype": "U8", "shape": [4 << 30], "data_offsets": [0, 4 << 30]}},
                size=4 << 30,
            ),
            **{f"std_{v}.safetensors": numbers("template_std", v) for v in (0, -1, 1e38, 1e-38)},
            **{f"mean_{v}.safetensors": numbers("template_mean", v) for v in (1e38, -1e30)},
            **{f"weights_{v}.safetensors": numbers("weight", v) for v in (1e30, -1e38)},
            "nan.safetensors": numbers("weight", float("nan")),
            **no_files(".pt"),
            **no_files(".safetensors"),
        },
    ),
    "hostile YAML": (
        settings,
        {
            "laughs.yaml": text(LAUGHS),
            "deep.yaml": text("a: " + "[" * 50_000),
            "code.yaml": text("output: !!python/object/apply:os.system ['touch code_ran']"),
            "itself.yaml": text("slides: &a [*a]"),
            "list.yaml": text("- 1\n- 2"),
            "noise.yaml": data(np.random.default_rng(1).bytes(10_000)),
            "infinite.yaml": text("mpp: .inf"),
            "nan.yaml": text("min_tissue: .nan"),
            "huge.yaml": text(f"tile_size: {'9' * 5000}"),
            "escape.yaml": text('"\\e]0;x\\a": 1'),
            "unknown.yaml": text("tile_sise: 256"),
            "open.yaml": text('output: "unclosed'),
            **no_files(".yaml"),
        },
    ),
    "hostile tables": (
        slides,
        {
            "unclosed.csv": text('wsi,mpp\n"a.svs,0.5\nb.svs,0.5\nc.svs,0.5\n'),
            "unclosed_last.csv": text('wsi,name\na.svs,x\nb.svs,"y\n'),
            "nul.csv": data(b"wsi,mpp\na\0.svs,0.5\n"),
            "columns.csv": text("wsi," + ",".join(f"c{n}" for n in range(50_000)) + "\n"),
            "field.csv": text("wsi\n" + "a" * 300_000 + "\n"),
            "lengths.csv": text("wsi,mpp\na.svs\n"),
            "twice.csv": text("wsi,wsi\na.svs,b.svs\n"),
            "infinite.csv": text("wsi,mpp\na.svs,inf\n"),
            "negative.csv": text("wsi,mpp\na.svs,-1\n"),
            "above.csv": text("wsi,name\na.svs,../../x\n"),
            "absolute.csv": text("wsi,name\na.svs,/x\n"),
            "escape.csv": text("wsi\na\x1b[2J.svs\n"),
            "noise.csv": data(np.random.default_rng(2).bytes(10_000)),
            "empty.csv": text(""),
            **no_files(".csv"),
        },
    ),
    "hostile GeoJSON": (
        regions,
        {
            "deep.geojson": text("[" * 200_000),
            "deep_object.geojson": text('{"geometry":' * 100_000),
            "nan.geojson": text(polygon([0, 0], [1, float("nan")], [1, 1], [0, 0])),
            "infinite.geojson": text(polygon([0, 0], [1, float("inf")], [1, 1], [0, 0])),
            "huge.geojson": text(polygon([0, 0], [1, 10**400], [1, 1], [0, 0])),
            "words.geojson": text(polygon(["a", "b"], ["c", "d"], ["a", "b"])),
            "point.geojson": text(polygon([0, 0])),
            "number.geojson": text("7"),
            "noise.geojson": data(np.random.default_rng(3).bytes(10_000)),
            "empty.geojson": text(""),
            **no_files(".geojson"),
        },
    ),
    "hostile masks": (
        mask,
        {
            "bomb.png": bomb,
            "cut.png": cut_picture,
            "text.png": text("no picture"),
            "shape.png": lambda file: Image.new("L", (64, 6400)).save(file),
            "noise.tif": data(b"II*\0" + np.random.default_rng(4).bytes(10_000)),
            "empty.png": text(""),
            **no_files(".png"),
        },
    ),
}
"""What is handed over, and what takes it."""

SLOW = {"sparse_4_GB.safetensors", "bomb.png", "laughs.yaml"}


# --- what is large, but right


def drawn_right(say: Say, folder: Path, points: int) -> str:
    """A freehand circle of so many points against Pillow's polygon."""
    from wsi_norm.tissue import read_geojson, regions_mask

    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radius = 9000 + 50 * np.sin(angles * 40)
    ring = np.stack([10_000 + radius * np.cos(angles), 10_000 + radius * np.sin(angles)], axis=1)
    file = folder / "circle.geojson"
    file.write_text(polygon(*ring.round(2).tolist()))
    drawn = regions_mask(read_geojson(file), (1400, 1850), (14.0, 14.0))
    image = Image.new("1", (1850, 1400))
    ImageDraw.Draw(image).polygon([tuple(point / 14) for point in ring], fill=1)
    differs = float((np.asarray(image) != drawn).mean())
    return f"{differs:.1%} of the mask differs from Pillow's" if differs > 0.005 else ""


def masked_right(say: Say, folder: Path, edge: int) -> str:
    """A mask at the slide's own size, whose left half is tissue; or refused as too large."""
    from wsi_norm.errors import ConfigError
    from wsi_norm.tissue import read_mask_image

    image = Image.new("1", (edge, edge))
    ImageDraw.Draw(image).rectangle((0, 0, edge // 2 - 1, edge), fill=1)
    file = folder / "mask.png"
    image.save(file)
    try:
        found = read_mask_image(file, (100, 100), (edge, edge))
    except ConfigError as error:
        return "" if edge > 12_000 and "too large" in str(error) else str(error)
    right = np.zeros((100, 100), bool)
    right[:, :50] = True
    return "" if np.array_equal(np.asarray(found), right) else "another mask"


# --- what needs a whole run

NAMES: tuple[str | bytes, ...] = (
    "\x1b]0;owned\x07.svs",
    "\x1b[2J.svs",
    "two\nlines.svs",
    "=HYPERLINK(1).svs",
    "+1.svs",
    "@SUM(1).svs",
    "-dash.svs",
    "<script>alert(1)<#script>.svs",
    "a" * 240 + ".svs",
    b"\xff\xfe.svs",
    "%s%n.svs",
    "‮gnp.svs",
    " space .svs",
    "café.svs",
    "..svs",
)


def runs(go: Go, small: Path) -> Iterator[Outcome]:
    """Hostile names in one run, each a trial; then pipes, devices and loops beside a good slide."""
    fault, slides, output = "hostile names of slides", go.place("named"), go.place("of_named")
    for name in NAMES:
        os.link(small, os.path.join(os.fsencode(slides), os.fsencode(name)))  # noqa: PTH118
    run = tried(command_line, ["run", slides, "-o", output, *QUICK], limit=RUN_LIMIT)
    status, lines = run.value if run.good else (run.error, [])
    raw = [line for line in lines if not line.isprintable()]
    rows = table_of(output)
    cells = [cell for row in rows for cell in row]
    for name in NAMES:
        known = os.fsdecode(name).removesuffix(".svs")
        why = "" if run.good and status == 0 else f"exit status {status}"
        if len(rows) != len(NAMES):
            why = f"{len(rows)} rows in slides.csv for {len(NAMES)} slides"
        elif known[0] in "=+-@" and any(cell.startswith(known[0]) for cell in cells):
            why = "a formula in slides.csv"
        elif raw and not known.isprintable():
            why = f"control characters on the terminal: {raw[0]!r}"
        elif "<script>" in known and "<script>alert" in read(output / "report.html"):
            why = "a script in report.html"
        yield Outcome(fault, not why, hang=run.hang, why=f"{known!r}: {why}" if why else "")
    for name, make in NO_FILES.items():
        yield beside_a_good_one(go, small, name, make)


QUICK = ("-n", "0", "--device", "cpu", "--tile-size", "256")


def table_of(output: Path) -> list[list[str]]:
    """The rows of slides.csv."""
    if not (output / "slides.csv").exists():
        return []
    with (output / "slides.csv").open(newline="", encoding="utf-8", errors="replace") as stream:
        return list(csv.reader(stream))[1:]


def read(file: Path) -> str:
    return file.read_text("utf-8", errors="replace")


def beside_a_good_one(go: Go, small: Path, name: str, make: Write) -> Outcome:
    """What is no slide is a line, and the good one is done; or the run is refused at once."""
    fault, folder, output = "slides that are no files", go.place("beside"), go.place("of_beside")
    odd = folder / f"{name}.svs"
    make(odd)
    run = tried(command_line, ["run", odd, small, "-o", output, *QUICK], limit=RUN_LIMIT)
    if not run.good:
        return Outcome(fault, False, hang=run.hang, why=f"{name}: {run.error.strip()[-200:]}")
    status, lines = run.value
    said = len(lines) == 1 and odd.name in lines[0]
    statuses = [row[1] for row in table_of(output)]
    good = said and (status, statuses) in ((1, ["failed", "done"]), (2, []))
    why = "" if good else f"{name}: {status} {statuses} {lines}"
    return Outcome(fault, not why, why=why)
