"""Pages generated from the code by an MkDocs hook.

configuration.md  from the pydantic models and the comments of their fields
commands.md       from the command line's own help
api.md            from the docstrings of `tossctr`'s public names
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

import tossctr
from tossctr.cli import app
from tossctr.commands.examples import EXAMPLES
from tossctr.commands.group import EXIT_CODES
from tossctr.config import schema
from tossctr.families.registry import config_class_of, known_models

DATA = (schema.DatasetConfig, schema.FeatureConfig, schema.LabelSpec, schema.ValidSplit)
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def on_files(files: Files, config: Any) -> Files:
    """MkDocs' hook: the generated pages join the written ones."""
    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files


def configuration() -> str:
    """Every key of both YAML files."""
    parts = [
        "# Configuration",
        "Two files in a folder (`--config`, by default `configs`): `dataset_config.yaml` "
        "describes the data, `model_config.yaml` (and the files in `model_config/`) experiments on "
        "them. An experiment's keys replace those of `Base` one by one; `--set key=value` replaces "
        "one for a single command, e.g. `--set valid_split.fraction=0.2`. An unknown key is "
        "an error, except for FuxiCTR's other names: [migration](migration.md#keys).",
        "## dataset_config.yaml",
        *map(keys, DATA),
        "## model_config.yaml",
        keys(schema.TrainingConfig),
        *(keys(config_class_of(name), f"model: {name}") for name in known_models()),
    ]
    return "\n\n".join(parts) + "\n"


def keys(model: type[BaseModel], title: str | None = None) -> str:
    """A table of one class: key, type, default, and its comment."""
    notes = comments(model)
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name in getattr(model, "without_effect", ()):
            continue
        # A default that depends on another key is described in the comment.
        followed = field.default_factory is not None
        default = "" if followed else f"`{plain(field.default)}`"
        default = "required" if field.is_required() else default
        note = notes.get(name, "")
        rows.append(f"| `{name}` | {cell(typed(field))} | {default} | {cell(note)} |")
    return "\n\n".join(
        (f"### {title or model.__name__}", inspect.getdoc(model) or "", "\n".join(rows))
    )


def typed(field: FieldInfo) -> str:
    """A field's type and bounds, in terms of YAML."""
    bounds = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(limit, name)
    ]
    return ", ".join([kind(field.annotation), *bounds])


def kind(annotation: Any) -> str:
    """`int`, `a, b or c`, `list of str`, `float or null`, `map of str to float`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{plain(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(kind, arguments))
    if origin is tuple:
        return f"list of {kind(arguments[0])}"
    if origin is dict:
        return f"map of {kind(arguments[0])} to {kind(arguments[1])}"
    return {"Path": "path"}.get(annotation.__name__, annotation.__name__)


def plain(value: Any) -> str:
    """A value as YAML spells it."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"


def comments(model: type[BaseModel]) -> dict[str, str]:
    """The comments on the lines of each field, base classes first."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base.__module__.startswith("pydantic"):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        at = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        for node in ast.parse(source).body[0].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                found[node.target.id] = " ".join(at[line] for line in lines if line in at)
    return found


def commands() -> str:
    """Every command: what it does, its options, examples."""
    group = get_command(app)
    context = group.make_context("tossctr", [], resilient_parsing=True)
    parts = [
        "# Commands",
        "Results go to the standard output, progress and errors to the standard error. Every "
        "command takes `--help` and `--quiet` (results and errors only); `--json` prints one JSON "
        "object. `tossctr --install-completion` completes commands and options in the shell.",
        "| exit code | |\n|---|---|\n"
        + "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
    ]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        rows = ["| option | default | |", "|---|---|---|"]
        for option in command.params:
            names = ", ".join(f"`{text}`" for text in (*option.opts, *option.secondary_opts))
            if option.param_type_name == "argument":
                names = f"`{(option.metavar or option.name).upper()}`"
            shown = "" if option.default in (None, False, ()) else f"`{plain(option.default)}`"
            rows.append(f"| {names} | {shown} | {cell(option.help or '')} |")
        table = "\n".join(rows) if command.params else ""
        lines = "\n".join(f"    {line}" for line in EXAMPLES[name])
        parts += [f"## tossctr {name}", inspect.cleandoc(command.help), table, lines]
    return "\n\n".join(part for part in parts if part) + "\n"


def api() -> str:
    """The public names, from their docstrings."""
    parts = [
        "# Python API",
        "The steps of the command line, for a notebook or a program; "
        "[the report's page](report.md#from-python) has an example.",
    ]
    for name in tossctr.__all__:
        thing = getattr(tossctr, name)
        signature = f"{name}{inspect.signature(thing)}".replace("'", "")
        parts += [f"## {name}", f"```python\n{signature}\n```", *sections(inspect.getdoc(thing))]
    return "\n\n".join(parts) + "\n"


def sections(doc: str | None) -> Iterator[str]:
    """A docstring as Markdown: its `Args:`, `Returns:`, `Raises:` become lists."""
    for block in (doc or "").split("\n\n"):
        head, _, rest = block.partition("\n")
        if re.fullmatch(r"(Args|Returns|Raises|Attributes):", head):
            # An entry starts at the first level of indentation; deeper lines belong to it.
            entries = re.sub(r"\n {2,}", " ", textwrap.dedent(rest)).splitlines()
            yield f"**{head[:-1]}**\n\n" + "\n".join(f"- {entry}" for entry in entries)
        else:
            yield block


def cell(text: str) -> str:
    """Text escaped for a table's cell."""
    return text.replace("\n", " ").replace("|", "\\|")


PAGES = {"configuration.md": configuration, "commands.md": commands, "api.md": api}

if __name__ == "__main__":  # to look at one: python docs/generate.py commands.md
    sys.stdout.write(PAGES[Path(sys.argv[1]).name]())
