"""What source files import, read off their syntax: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One imported module, or a name of one. ``module`` of a relative import begins with its dots."""

    file: Path
    line: int
    module: str
    name: str | None = None

    @property
    def relative(self) -> bool:
        """Whether it's inside the own package."""
        return self.module.startswith(".")

    @property
    def top(self) -> str:
        """The top-level package."""
        return self.module.partition(".")[0]

    @property
    def place(self) -> str:
        """File and line, as messages name them."""
        return f"{self.file.name}:{self.line}"

    def __str__(self) -> str:
        return f"from {self.module} import {self.name}" if self.name else f"import {self.module}"


def imports_of(file: Path) -> list[Import]:
    """Every import of a source file in order, also those inside functions; not those that only type checkers
    see (``if TYPE_CHECKING:``).
    """
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    return list(_walk(tree.body, file))


def _walk(nodes: list[ast.stmt], file: Path) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(file, node.lineno, module, alias.name)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _walk(node.orelse, file)
        else:
            for part in ast.iter_child_nodes(node):
                if isinstance(part, ast.stmt):
                    yield from _walk([part], file)
                elif isinstance(part, (ast.ExceptHandler, ast.match_case)):
                    yield from _walk(part.body, file)
