"""The layers listed in CONTRIBUTING.md: no import of a higher layer, and no circle."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "tossctr"
GUIDE = PACKAGE.parents[1] / "CONTRIBUTING.md"


def listed_layers():
    """The packages and modules of each layer, highest first."""
    table = GUIDE.read_text().partition("| layer | packages |")[2].partition("\n\n")[0]
    return [re.findall(r"`(\w+)`", line) for line in table.splitlines()[2:]]


LAYERS = listed_layers()


def modules(root):
    """Each module's name below the package, and its file."""
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imported(file, known):
    """What of `known` a file imports, anywhere in it: as it is loaded, in functions, for types."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            _, _, below = name.partition("tossctr.")
            while below and below not in known:
                below = below.rpartition(".")[0]
            if name.startswith("tossctr.") and below:
                yield below


def imports_of(root):
    known = dict(modules(root))
    return {name: set(imported(file, known)) - {name} for name, file in known.items()}


def circles(imports):
    """Every set of modules that reach one another (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in imports[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in imports:
        if name not in index:
            visit(name)
    return found


def upward(imports):
    """Every import of a higher layer: (importing module, imported module)."""
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}

    def of(module):
        return rank[module.partition(".")[0]]

    return sorted((a, b) for a, others in imports.items() if a for b in others if of(b) < of(a))


def test_every_module_is_in_one_layer():
    listed = [name for layer in LAYERS for name in layer]
    assert sorted(listed) == sorted({name.partition(".")[0] for name, _ in modules(PACKAGE)} - {""})


def test_no_import_goes_up_or_round():
    imports = imports_of(PACKAGE)
    assert upward(imports) == []
    assert circles(imports) == []


def test_an_import_that_goes_up_and_a_circle_are_found(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "store.py").write_text("def f():\n    from tossctr.models import base\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base.py").write_text("import tossctr.data.store\n")
    imports = imports_of(tmp_path)
    assert upward(imports) == [("data.store", "models.base")]
    assert circles(imports) == [["data.store", "models.base"]]
