"""Estimates cores, GPUs, storage, requests and money for hours of footage, from measured costs and your prices.

    python -m benchmarks.scale_model [--hours 1000000] [--days 30] [--costs benchmarks/results/scale_costs.json] [--set NAME=NUMBER ...]

The formulas are in `model` below, and their assumptions in `Assumptions`; `--set` changes an assumption. docs/scale.md shows the output and
the source of each number.
"""

import argparse
import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

COSTS = Path(__file__).resolve().parent / "results" / "scale_costs.json"


@dataclass
class Assumptions:
    """Everything that is not measured.

    Attributes:
        utilisation: Share of the cores' time spent on work. Ours; benchmarks/results/scale_out.md measures one part of it.
        pixel_factor: CPU of decoding, scanning and encoding relative to the measured footage; 1 means the same frames.
        source_mbit_s: Bit rate of the footage, for its storage. 5 Mbit/s is what many services send at 1080p.
        kept_share: Share of the seconds that is written to shards; 0 means the share of the measured footage.
        gpu_clips_s: Clips that one GPU captions in a second. Not measured on a GPU; 1 is a guess, replace it by a measurement.
        core_hour: Price in USD of an hour of one core. 0.04: an EC2 m7g.large (2 cores), on demand in us-east-1, was 0.0816 in June 2026.
        gpu_hour: Price in USD of an hour of one GPU. 2.5: an H100 on demand was 2.50 to 3.50 at specialised clouds in May 2026.
        gb_month: Price in USD of a GB for a month on object storage. 0.023: S3 Standard, us-east-1, the first 50 TB.
        put_1000: Price of 1000 PUT, COPY, POST or LIST requests. 0.005: the same.
        get_1000: Price of 1000 GET, HEAD and other requests. 0.0004: the same.
        months: How long tables and shards are kept.
    """

    utilisation: float = 0.85
    pixel_factor: float = 1.0
    source_mbit_s: float = 5.0
    kept_share: float = 0.0
    gpu_clips_s: float = 1.0
    core_hour: float = 0.04
    gpu_hour: float = 2.5
    gb_month: float = 0.023
    put_1000: float = 0.005
    get_1000: float = 0.0004
    months: float = 1.0


PIXELS = ("scan", "shards")
"""Steps whose CPU grows with the pixels of the footage; the others work on thumbnails."""


def model(costs: dict[str, Any], hours: float, days: float, given: Assumptions) -> list[tuple[str, float, str]]:
    """(quantity, value, unit) of each line of the table."""
    seconds = hours * 3600
    measured_s = costs["footage"]["seconds"]
    clips = seconds * costs["clips"] / measured_s
    share = given.kept_share or costs["kept"]["seconds"] / measured_s
    kept_per_s = share / max(costs["kept"]["seconds"] / measured_s, 1e-9)
    core_s = {
        name: s / measured_s * (given.pixel_factor if name in PIXELS else 1.0) for name, s in costs["cpu_s"].items()
    }
    core_s["shards"] *= kept_per_s
    core_hours = {name: s * seconds / 3600 / given.utilisation for name, s in core_s.items()}
    total_core_h = sum(core_hours.values())
    kept_clips = clips * share
    gpu_h = kept_clips / given.gpu_clips_s / 3600
    stored = {name: size / measured_s * seconds for name, size in costs["bytes"].items()}
    stored["shards"] = costs["kept"]["bytes"] / measured_s * kept_per_s * seconds * given.pixel_factor**0.75
    source_tb = given.source_mbit_s / 8 * seconds / 1e6
    storage = costs["object_storage"]
    per_s = {kind: n / storage["seconds"] for kind, n in storage["requests"].items()}
    puts = (per_s["PUT"] + per_s["POST"]) * seconds
    gets = (per_s["GET"] + per_s["HEAD"]) * seconds
    tb = sum(stored.values()) / 1e12
    money = {
        "cores": total_core_h * given.core_hour,
        "GPUs, captions": gpu_h * given.gpu_hour,
        "storage": tb * 1000 * given.gb_month * given.months,
        "requests": puts / 1000 * given.put_1000 + gets / 1000 * given.get_1000,
    }
    lines = [("footage", seconds / 3600, "hours"), ("clips", clips, ""), ("clips kept", kept_clips, "")]
    lines += [(f"core hours: {name}", h, "h") for name, h in core_hours.items()]
    lines += [
        ("cores for it in that time", total_core_h / 24 / days, "cores"),
        ("GPUs for captions", gpu_h / 24 / days, "GPUs"),
    ]
    lines += [(f"stored: {name}", size / 1e12, "TB") for name, size in stored.items()]
    lines += [
        ("footage itself", source_tb, "TB"),
        ("PUT and POST", puts, "requests"),
        ("GET and HEAD", gets, "requests"),
    ]
    lines += [("requests a second", (puts + gets) / (days * 86400), "1/s")]
    lines += [(f"money: {name}", value, "") for name, value in money.items()]
    return [*lines, ("money: all", sum(money.values()), "")]


def main() -> None:
    """Prints the table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--hours", type=float, default=1e6)
    ask.add_argument("--days", type=float, default=30.0)
    ask.add_argument("--costs", type=Path, default=COSTS)
    ask.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="changes an assumption; repeatable"
    )
    asked = ask.parse_args()
    given = Assumptions()
    known = {field.name for field in fields(Assumptions)}
    for text in asked.set:
        name, _, number = text.partition("=")
        if name not in known:
            sys.exit(f"scale_model: unknown assumption '{name}'; the known ones are {', '.join(sorted(known))}")
        try:
            setattr(given, name, float(number))
        except ValueError:
            sys.exit(f"scale_model: {name} must be a number (got '{number}')")
    print("| | | |\n|---|---:|---|")
    for what, value, unit in model(json.loads(asked.costs.read_text()), asked.hours, asked.days, given):
        number = f"{value:,.0f}" if value >= 100 else f"{value:,.2g}"
        print(f"| {what} | {number} | {unit} |")


if __name__ == "__main__":
    main()
