"""Draw the gallery: pictures for you alone, counts for docs/gallery.md.

    python -m benchmarks.gallery --data DATA [--output gallery] [--only WORD] [--docs docs]

The pictures hold pixels of the data, whose licences forbid to pass them on: they stay in the output
folder. Into the folder of --docs go the table and one strip of what the package itself draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.gallery.page import replace_table, strip, table, write_html
from benchmarks.gallery.subjects import METHODS, SUBJECTS
from benchmarks.gallery.work import find, work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data")
    parser.add_argument("--output", type=Path, default=Path("gallery"))
    parser.add_argument("--only", default="", help="subjects whose name has this in it")
    parser.add_argument("--docs", type=Path, help="its gallery.md gets the new counts")
    arguments = parser.parse_args()
    normalizers = {name: model.load("cpu") for name, model in METHODS.items()}
    rows = []
    for subject in SUBJECTS:
        if arguments.only not in subject.name:
            continue
        file = find(subject, arguments.data, arguments.output / "drawn")
        if not file.exists():
            print(f"left out: {subject.name}: {file} is not there")
            continue
        rows.append(work(subject, file, normalizers))
        print(subject.name, flush=True)
    if not rows:
        raise SystemExit(f"no subject with {arguments.only!r} in its name under {arguments.data}")
    write_html(rows, arguments.output)
    (arguments.output / "gallery.md").write_text(table(rows) + "\n")
    if arguments.docs:
        page = arguments.docs / "gallery.md"
        page.write_text(replace_table(page.read_text(), table(rows)))
        ours = [row for row in rows if row.subject.file.startswith("drawn:")]
        strip(ours).save(arguments.docs / "images" / "gallery_drawn.jpg", quality=85)
    print(arguments.output / "index.html")


if __name__ == "__main__":
    main()
