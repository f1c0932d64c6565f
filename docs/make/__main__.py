"""Regenerates the parts of README.md and docs/*.md that come from the code."""

from docs.make.parts import PARTS, ROOT, written

for page in PARTS:
    text = written(page)
    if text != (ROOT / page).read_text():
        (ROOT / page).write_text(text)
        print(page)
