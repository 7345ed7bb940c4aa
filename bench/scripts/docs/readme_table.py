"""The README's tables, from the committed results.

    python bench/scripts/docs/readme_table.py bench/results/*.json

Reads what `swise-bench --output FILE`, with or without `--suite table1`, wrote; prints Markdown.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from swise_deploy.command.console import run_command
from swise_deploy.evaluation.metrics import METRICS
from swise_deploy.storage.documents import read_document


def main() -> int:
    """Print the tables of every file that was given."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    return run_command(lambda: _run(parser.parse_args().results))


def _run(paths: list[Path]) -> int:
    for path in paths:
        advice = "Make them with swise-bench"
        document = read_document(path, dict[str, Any], what="the results", advice=advice)
        lines = _table1_lines(document) if "rows" in document else _speed_lines(document)
        sys.stdout.write("\n".join([*lines, ""]) + "\n")
    return 0


def _speed_lines(document: dict[str, Any]) -> list[str]:
    reference = document["ratios"][0]["reference"]
    width, height = document["ratios"][0]["lr_size"]
    runners = {subject["name"]: subject["runner"] for subject in document["subjects"]}
    where = f"{document['host']['cpu']}, {document['threads']} threads, LR {width}x{height}"
    lines = [
        f"{where}, batch 1, {document['created'][:10]}; all in one interleaved run:",
        "",
        f"| | runtime | time relative to {reference} | 95% CI | CPU time, relative | 95% CI |",
        "|---|---|---:|---:|---:|---:|",
        f"| {reference} | {runners[reference]} | 1 | | 1 | |",
    ]
    for ratio in document["ratios"]:
        slower, cpu = ratio["times_slower"], ratio["times_cpu"]
        lines.append(
            f"| {ratio['subject']} | {runners[ratio['subject']]} | {slower['value']:.2f} | "
            f"{slower['low']:.2f} to {slower['high']:.2f} | {cpu['value']:.2f} | "
            f"{cpu['low']:.2f} to {cpu['high']:.2f} |"
        )
    if "peak" in document:
        lines += ["", *_peak_lines(document)]
    warning = document["warning"]
    return [*lines, *(["", f"Note: {warning}."] if warning else [])]


def _peak_lines(document: dict[str, Any]) -> list[str]:
    peak = document["peak"]
    shares = sorted(peak["share"].items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares)
    macs = f"{peak['mult_adds'] / 1e9:.2f} G Mult-Adds of the network as it is written"
    reached = f"Share of the convolution peak that the fastest runs reached, with the {macs}"
    return [f"{reached}: {text}. Peak {peak['origin']}."]


def _table1_lines(document: dict[str, Any]) -> list[str]:
    titles = " / ".join(metric.title for metric in METRICS.values())
    lines = [
        f"| network | set | params counted (published) K | {titles} measured | published |",
        "|---|---|---:|---:|---:|",
    ]
    for row in document["rows"]:
        published = row["published"]
        printed, params_k = "-", "-"
        if published:
            score = published["scores"].get(row["image_set"])
            printed = _score_text(score) if score else "-"
            params_k = f"{published['params_k']:g}" if published["params_k"] else "-"
        counted = f"{row['params'] / 1e3:.1f} ({params_k})" if row["params"] else "-"
        score = row["measured"]
        measured = "no weights" if "not_measured" in score else _score_text(score)
        lines.append(
            f"| {row['network']} x{row['scale']} | {row['image_set']} | {counted} | {measured} | "
            f"{printed} |"
        )
    return lines


def _score_text(score: dict[str, float]) -> str:
    return " / ".join(f"{score[name]:.{metric.digits}f}" for name, metric in METRICS.items())


if __name__ == "__main__":
    sys.exit(main())
