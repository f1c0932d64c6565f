"""The model card of a finished training: what it was made from, by which recipe, and how the loss went."""

from collections.abc import Sequence
from typing import Any

WIDTH_PX, HEIGHT_PX, MARGIN_PX = 640, 240, 40
HIDDEN = ("name", "stage", "stages")


def model_card(record: dict[str, Any]) -> str:
    """Markdown with Hugging Face front matter."""
    recipe, losses, clips = record["recipe"], record["losses"], record["clips"]
    kind = "image-to-video" if recipe["image_condition"] != "none" else "text-to-video"
    base = recipe["base"] or "a small random model of Stable Diffusion's architecture"
    lines = [
        "---", f"pipeline_tag: {kind}", "library_name: diffusers", "tags: [rushes, video-generation]", "---", "",
        f"# {recipe['name']}", "",
        f"Trained by `rushes train --recipe {recipe['name']}` from {base} on {len(clips['used'])} clips "
        f"({len(clips['heldout'])} held out, {len(clips['left_out'])} left out; `train.json` names all).", "",
        f"- shards: `index.json` with sha256 `{record['shards']['index_sha256']}`",
        f"- loss on a fixed grid of clips, noise levels and noise: {losses['grid_before']:.4f} before, {losses['grid_after']:.4f} after",
        f"- steps: {len(losses['per_step'])}", "", "![training loss](loss.svg)", "", "| key | value |", "|---|---|",
    ]  # fmt: skip
    lines += [f"| {key} | {_text(value)} |" for key, value in recipe.items() if key not in HIDDEN]
    for i, stage in enumerate(recipe["stages"]):
        text = ", ".join(f"{key} {_text(value)}" for key, value in stage.items())
        lines.append(f"| stage {i + 1} | {text} |")
    if record.get("motion_quantiles"):
        least, most = record["motion_quantiles"][0], record["motion_quantiles"][-1]
        text = f"Motion bucket 0 is a motion score of {least:.4g}, 255 one of {most:.4g}; between them it is the share of the trained clips that"
        lines += ["", f"{text} move less (`motion_quantiles` in `train.json`)."]
    lines += ["", "Versions: " + ", ".join(f"{name} {number}" for name, number in record["versions"].items()) + "."]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return str(value).replace("|", "\\|")


def curve_svg(every: Sequence[float | None]) -> str:
    """The training loss of every step, and its running mean, as a picture; skipped steps have none."""
    losses = [loss for loss in every if loss is not None]
    most = max(losses, default=1.0) or 1.0
    step_x = (WIDTH_PX - 2 * MARGIN_PX) / max(1, len(losses) - 1)
    high = HEIGHT_PX - 2 * MARGIN_PX
    mean, means = losses[0] if losses else 0.0, []
    for loss in losses:
        mean = 0.9 * mean + 0.1 * loss
        means.append(mean)

    def line(values: Sequence[float], colour: str) -> str:
        points = " ".join(
            f"{MARGIN_PX + i * step_x:.1f},{MARGIN_PX + high * (1 - v / most):.1f}" for i, v in enumerate(values)
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}"/>'

    texts = [
        f'<text x="4" y="{MARGIN_PX}">{most:.3g}</text>',
        f'<text x="4" y="{HEIGHT_PX - MARGIN_PX}">0</text>',
        f'<text x="{WIDTH_PX - MARGIN_PX}" y="{HEIGHT_PX - 12}" text-anchor="end">step {len(losses)}</text>',
    ]
    body = line(losses, "#bbb") + line(means, "#06c") + "".join(texts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{HEIGHT_PX}" font-family="sans-serif" font-size="12">'
    return f'{head}<rect width="100%" height="100%" fill="white"/>{body}</svg>\n'
