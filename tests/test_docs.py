"""The documentation works: code of CONTRIBUTING and of the pages, commands, options, links, messages, generated parts, manifests."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

import annotate
import filters
from curate.clip import Clip
from curate.stages import stage
from curate.stages.stage import StageSpec
from docs.make import cli, messages
from docs.make.parts import PARTS, written
from tests import kuberay
from train_hooks.recipe_files import explain

ROOT = Path(__file__).resolve().parents[1]


def blocks(path: str, language: str) -> list[str]:
    """The fenced code blocks of a page, dedented."""
    text = (ROOT / path).read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, flags=re.S | re.M)
    return ["\n".join(line.removeprefix(indent) for line in code.splitlines()) + "\n" for indent, code in found]


def contributed() -> dict[str, str]:
    """The files that CONTRIBUTING.md tells a newcomer to write: path and text."""
    found = {}
    for step in re.split(r"^\d+\. ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M):
        if block := re.search(r"^( *)```(?:python|yaml)\n(.*?)^ *```", step, flags=re.S | re.M):
            path = re.findall(r"`([\w/]+\.(?:py|yaml))`", step)[0]
            found[path] = re.sub(rf"^{block[1]}", "", block[2], flags=re.M)
    return found


@pytest.fixture
def newcomers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of CONTRIBUTING.md, importable beside the packages they belong to."""
    for name, code in contributed().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    names = ("filters.colorfulness", "annotate.colours")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    for package, module, name in ((filters, "colorfulness", "Colorfulness"), (annotate, "colours", "Colours")):
        monkeypatch.setattr(package, "__path__", [str(tmp_path / package.__name__), *package.__path__])
        made = importlib.import_module(f"{package.__name__}.{module}")
        monkeypatch.setattr(package, name, getattr(made, name), raising=False)
    yield tmp_path
    for name in names:
        sys.modules.pop(name)
    sys.modules.update(before)


def test_contributing_gives_a_filter_a_captioner_and_a_recipe_with_tests() -> None:
    assert [*contributed()] == [
        "filters/colorfulness.py",
        "tests/filters/test_colorfulness.py",
        "annotate/colours.py",
        "tests/annotate/test_colours.py",
        "train_hooks/recipes/tiny_quick.yaml",
    ]


def test_the_code_of_contributing_passes_lint(newcomers: Path) -> None:
    (newcomers / "curate").mkdir()
    for name in ("pyproject.toml", "curate/clip.py"):  # ruff sorts imports by the files that are there
        shutil.copy(ROOT / name, newcomers / name)
    for command in (["check"], ["format", "--check", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=newcomers, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["filters/test_colorfulness", "annotate/test_colours"])
def test_the_tests_of_contributing_pass(newcomers: Path, name: str) -> None:
    scope: dict[str, Any] = {}
    exec(compile(contributed()[f"tests/{name}.py"], name, "exec"), scope)
    tests = [value for key, value in scope.items() if key.startswith("test_")]
    assert len(tests) == 2
    for function in tests:
        marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
        for values in marks[0].args[1] if marks else [()]:
            function(*values)


@pytest.mark.parametrize(("use", "column"), [("filters.Colorfulness", "colorfulness"), ("annotate.Colours", "caption")])
def test_the_stages_of_contributing_keep_the_contract(newcomers: Path, use: str, column: str) -> None:
    spec = StageSpec(use, "mine")
    built = stage.ready(spec)
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    clips = [
        Clip(name, "s", 0.0, 1.0, 25.0, 25, 32, 32, (cv2.imencode(".png", picture)[1].tobytes(),), (0.0,))
        for name, picture in {"noise": noise, "blue": noise * np.uint8([1, 0, 0])}.items()
    ]
    rows = {row["clip_id"]: row for row in stage.apply(built, clips, {column: column})}
    assert rows["noise"][column] != rows["blue"][column]
    assert not [row["error"] for row in rows.values() if row.get("error")]


def test_the_recipe_of_contributing_loads(newcomers: Path) -> None:
    path = newcomers / "train_hooks/recipes/tiny_quick.yaml"
    rows = explain(str(path))
    assert {row.key: row.value for row in rows}["steps"] == "20"
    assert all(row.source for row in rows)


def test_the_notebook_page_runs_on_a_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for code in blocks("notebooks/README.md", "python"):
        exec(
            compile(
                code.replace('"text_area"', '"brightness"').replace("keep.motion", "keep.brightness"),
                "notebooks/README.md",
                "exec",
            ),
            scope,
        )
    assert scope["frames"].ndim == 4
    assert scope["table"].num_rows > 0
    assert len(scope["tighter"].clip_ids) < len(scope["kept"].clip_ids)
    assert "clips kept" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["quickstart", "thresholds", "shards", "api"])
def test_the_python_of_a_page_runs_on_a_run(
    page: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    found = blocks(f"docs/{page}.md", "python")
    assert found
    for code in found:  # the project's captioner and the motion of its clips are other ones than the demo's
        code = code.replace("caption_labels", "caption_says").replace("motion > 0.7 and motion < 0.9", "motion >= 0")
        exec(compile(code, f"docs/{page}.md", "exec"), {})


def test_the_map_of_contributing_lists_the_folders_of_the_engine_in_the_order_of_their_imports() -> None:
    cells = re.findall(r"^\| (`\w+/`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)
    listed = re.findall(r"`(\w+)/`", " ".join(cells))
    assert sorted(listed) == sorted(path.parent.name for path in (ROOT / "curate").glob("*/__init__.py"))
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors = {name: -floor for floor, names in enumerate(layers) for name in names.split(" | ")}
    assert [floors[name] for name in listed] == sorted(floors[name] for name in listed)


def test_the_page_on_python_documents_the_public_names() -> None:
    public, _, internal = (ROOT / "docs/api.md").read_text().partition("## Not part of the interface")
    documented = {*re.findall(r"^::: rushes\.(\w+)", public, flags=re.M), "__version__"}
    assert documented == set(importlib.import_module("rushes").__all__)
    assert "::: curate.dataset.run.Run" in public
    assert "::: rushes" not in internal


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_links_have_a_target_in_the_repository(page: str) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target


def test_commands_and_options_on_the_pages_exist() -> None:
    known = {name: {o for p in made.params for o in (*p.opts, *p.secondary_opts)} for name, made in cli.commands()}
    n = 0
    for page in PAGES:
        lines = [line.partition("  #")[0] for block in blocks(page, "sh") for line in block.splitlines()]
        for line in lines:
            words = line.partition("rushes ")[2].split() if re.match(r"(torchrun .*)?rushes ", line) else []
            command = next(
                (f"rushes {' '.join(words[:n])}" for n in (2, 1) if f"rushes {' '.join(words[:n])}" in known), None
            )
            assert command or not words, f"{page}: {line}"
            for option in (word for word in words if word.startswith("--")):
                assert option.partition("=")[0] in known[command or ""], f"{page}: {line}"
                n += 1
    assert n > 40
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.M):
        assert f"{target}:" in makefile


@pytest.mark.parametrize("page", PARTS)
def test_the_generated_parts_of_a_page_are_current(page: str) -> None:
    assert (ROOT / page).read_text() == written(page), "regenerate it: make docs-tables"


def test_the_messages_of_the_troubleshooting_page_are_printed_by_the_code() -> None:
    assert len(list(messages.quoted())) > 40
    differing = messages.differing()
    assert not differing, "\n".join(differing)


@pytest.mark.parametrize(
    ("message", "known"),
    [
        ("runs/demo is full; remove some files", True),
        ("runs/demo is full; delete some files", False),
        ("pipeline.yaml:3: 'x' is full; remove some files", True),
        ("remove some files; runs/demo is full", False),
    ],
)
def test_a_quoted_message_must_have_the_words_of_the_code(message: str, known: bool) -> None:
    text = messages.Text("a.py", 1, (" is full; ", "remove some files"))
    assert messages.is_known(message, [text]) is known


@pytest.mark.parametrize(("name", "kind"), [("rayjob", kuberay.RayJob), ("raycluster", kuberay.RayCluster)])
def test_a_manifest_fits_the_schema_of_kuberay(name: str, kind: type[kuberay.RayJob | kuberay.RayCluster]) -> None:
    text = (ROOT / f"docs/kuberay/{name}.yaml").read_text()
    manifest = kind.model_validate(yaml.safe_load(text))
    cluster = manifest.spec.rayClusterSpec if isinstance(manifest, kuberay.RayJob) else manifest.spec
    assert cluster is not None
    (version,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert cluster.rayVersion == version
    assert cluster.enableInTreeAutoscaling
    for old, new in [
        ("replicas: 1", 'replicas: "1"'),
        ("groupName", "groupname"),
        ("minReplicas: 1", "minReplicas: 99"),
    ]:
        with pytest.raises(ValidationError):
            kind.model_validate(yaml.safe_load(text.replace(old, new)))


def test_the_version_is_the_same_everywhere() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    unreleased, released = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[:2]
    assert (unreleased, released) == ("Unreleased", version)


def test_workflows_and_forms_are_valid_and_call_targets_of_the_makefile() -> None:
    paths = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    assert len(paths) >= 5
    assert all(isinstance(yaml.safe_load(path.read_text()), dict) for path in paths)
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert all(line.startswith("make ") for line in lines)
    makefile = (ROOT / "Makefile").read_text()
    for target in (word for line in lines for word in line.split()[1:] if "=" not in word):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
