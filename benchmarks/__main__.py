"""Run the benchmark's parts and write results.md, results.json and results.png.

    python -m benchmarks [PART ...] [--quick] [--full] [--docs docs]

Parts: layer, pipeline, memory, loading, growth, scheduler. A part that does not run keeps its last
results in the output folder, with their date.

Every contestant works in processes of its own: one that fails, or is not installed, is a line with
its reason in the table and stops nobody else.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks import growth, layer, loading, machine, memory, pipeline, report, scheduler
from benchmarks.aims import aims
from benchmarks.scale import FULL, NORMAL, QUICK
from wsi_norm.machine import malloc_environment

PARTS = {
    "layer": layer,
    "pipeline": pipeline,
    "memory": memory,
    "loading": loading,
    "growth": growth,
    "scheduler": scheduler,
}

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it out")
    parser.add_argument(
        "--full", action="store_true", help="a million no-op shards (an hour or two)"
    )
    parser.add_argument("--output", type=Path, default=Path("bench"))
    parser.add_argument("--docs", type=Path, help="folder of performance.md, to write them to")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {sorted(unknown)[0]!r} (known: {', '.join(PARTS)})")
    scale = QUICK if arguments.quick else FULL if arguments.full else NORMAL
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    # of everybody, as wsi-norm has it for its own workers: docs/architecture.md, Memory
    os.environ.update(ONE_THREAD | malloc_environment())
    results = report.read(output, scale.name)
    for name in arguments.parts or PARTS:
        print(f"== {name}", flush=True)
        results["machine"] = machine.facts()
        results["dates"][name] = results["machine"]["date"]
        results[name] = PARTS[name].measure(scale, output)
        report.write(results, output)
    print(report.aims_table(aims(results)))
    if arguments.docs is not None:
        report.write_docs(results, output, arguments.docs)
    print(output / "results.md")


if __name__ == "__main__":
    main()
