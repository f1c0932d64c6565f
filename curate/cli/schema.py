"""`rushes schema`: the JSON schema of pipeline.yaml, for editors."""

import importlib
import inspect
from typing import Any

from curate.cli.common import print_json

STAGES = {"measure": ("filters",), "caption": ("annotate",), "embed": ("annotate",), "cuts": ("curate.cuts",)}


def command() -> None:
    """Print the JSON schema of pipeline.yaml, for editors: `# yaml-language-server: $schema=...`."""
    print_json(build())


def build() -> dict[str, Any]:
    """The schema of the whole file; known stages with their options, other dotted names with any option."""
    from curate.config.config import Config

    schema = Config.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "rushes pipeline"
    properties = schema["properties"]
    properties["sources"] = {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            properties["sources"],
        ],
        "description": "Globs, directories, files or manifests.",
    }
    for key in ("measure", "caption"):
        properties[key] = {"type": "array", "items": _stages(STAGES[key]), "default": []}
    properties["embed"] = {"anyOf": [_stages(STAGES["embed"]), {"type": "null"}], "default": None}
    schema["$defs"]["ScanConfig"]["properties"]["cuts"] = _stages(STAGES["cuts"])
    return schema


def _stages(modules: tuple[str, ...]) -> dict[str, Any]:
    """The schema of one stage: a stage of these modules, or another dotted name."""
    from pydantic import TypeAdapter

    from curate.config.config import RUNNER_KEYS
    from curate.stages import stage

    runner = {key: TypeAdapter(kind).json_schema() for key, kind in RUNNER_KEYS.items()}
    known = []
    for module in modules:
        for name, cls in vars(importlib.import_module(module)).items():
            if inspect.isclass(cls) and hasattr(cls, "columns") and hasattr(cls, "setup"):
                options = {option: TypeAdapter(kind).json_schema() for option, kind in stage.options_of(cls).items()}
                use = {"const": f"{module}.{name}", "description": inspect.getdoc(cls) or ""}
                known.append(
                    {
                        "type": "object",
                        "required": ["use"],
                        "properties": {"use": use, **runner, **options},
                        "additionalProperties": False,
                    }
                )
    names = [entry["properties"]["use"]["const"] for entry in known]  # type: ignore[index]
    other = {
        "type": "object",
        "required": ["use"],
        "properties": {"use": {"type": "string", "not": {"enum": names}}, **runner},
    }
    return {"anyOf": [*known, other]}
