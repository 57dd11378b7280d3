"""What a scorer of reasoning-gym may be given: some of them evaluate answers, or rows, as Python.

Read off version 0.1.25: ``eval(answer)``, sympy's ``parse_expr(answer)`` (which is ``eval``), ``eval`` of the
row's own problem, and fractions of any exponent. What they're given is therefore of a form that can do
nothing but what it's for, and soon.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

VERSION = "0.1.25"
_LITERALS = ("string_insertion", "spiral_matrix", "binary_matrix", "n_queens")
_SUMS = ("countdown", "puzzle24")
_FORMULAS = ("simple_integration", "intermediate_integration", "polynomial_multiplication")
_FRACTIONS = ("coin_flip",)
_LONGEST = 20_000
_SHORTEST = {"countdown": 200, "puzzle24": 200, "coin_flip": 100, "codeio": 2_000}
"""Characters of an answer that a scorer is given."""
_FUNCTIONS = frozenset("sin cos tan sec csc cot exp log ln sqrt asin acos atan sinh cosh tanh Abs".split())
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd)
_SHIFTS = (ast.Add, ast.Sub, ast.Mult, ast.LShift, ast.RShift, ast.BitAnd, ast.BitOr, ast.BitXor, ast.USub)
_NODES, _EXPONENT, _NUMBER = 200, 20, 10**12


def may_score(task: str, answer: str) -> bool:
    """Whether the scorer of a task may be given this answer; no answer that it could accept is held back but
    one that is written more than lavishly.
    """
    if len(answer) > _SHORTEST.get(task, _LONGEST):
        return False
    if task in _LITERALS:
        return _is_literal(answer) is not False
    if task in _SUMS:
        return bool(re.fullmatch(r"[\d+\-*/(). ]*", answer)) and "**" not in answer and "//" not in answer
    if task in _FORMULAS:
        return _is_formula(answer)
    if task in _FRACTIONS:
        return not re.search(r"[eE][+-]?\d{4}", answer)
    return True


def may_be_asked(task: str, entry: Mapping[str, Any]) -> bool:
    """Whether a scorer may be given this row's entry: rows are files, and files may come from anyone."""
    answer, data = entry.get("answer"), entry.get("metadata") or {}
    if task == "number_sorting":
        return isinstance(answer, str) and _is_literal(answer) is True
    if task == "bitwise_arithmetic":
        return _is_shifted(str(data.get("problem", "")))
    if task in _FORMULAS:
        gold = answer if task == "polynomial_multiplication" else data.get("integrand")
        return isinstance(gold, str) and _is_formula(gold)
    return True


def _tree(text: str) -> ast.expr | None:
    """The expression that a text is in Python; None: it's none, so that evaluating it does nothing.

    Raises:
        RecursionError, MemoryError: it's too deep to be told.
    """
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _is_literal(text: str) -> bool | None:
    """True: a literal of Python; False: an expression of another kind; None: no expression."""
    try:
        if _tree(text) is None:
            return None
        ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _is_formula(text: str) -> bool:
    """Whether a text is a formula in Python's spelling: numbers, names, known functions, small powers."""
    try:
        tree = _tree(text)
        return tree is not None and len(list(ast.walk(tree))) <= _NODES and all(_formulas(tree, _EXPONENT))
    except (RecursionError, MemoryError):
        return False


def _formulas(node: ast.expr, powers: int) -> Iterator[bool]:
    """Of each part whether it's allowed; ``powers`` is what exponents around it leave for those inside."""
    if isinstance(node, ast.Constant):
        yield isinstance(node.value, (int, float)) and abs(node.value) <= _NUMBER
    elif isinstance(node, ast.Name):
        yield bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,3}|theta|alpha|beta", node.id))
    elif isinstance(node, ast.UnaryOp):
        yield isinstance(node.op, _OPERATORS)
        yield from _formulas(node.operand, powers)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        size = _exponent(node.right)
        yield size <= powers
        yield from _formulas(node.left, powers // max(1, int(size)) if size <= powers else 0)
    elif isinstance(node, ast.BinOp):
        yield isinstance(node.op, _OPERATORS)
        yield from _formulas(node.left, powers)
        yield from _formulas(node.right, powers)
    elif isinstance(node, ast.Call):
        yield isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        yield len(node.args) == 1 and not node.keywords
        for part in node.args:
            yield from _formulas(part, powers)
    else:
        yield False


def _exponent(node: ast.expr) -> float:
    """The size of an exponent that is a number or a ratio of numbers; infinite for any other."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return abs(float(node.value))
    if isinstance(node, ast.UnaryOp):
        return _exponent(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return max(_exponent(node.left), _exponent(node.right))
    return float("inf")


def _is_shifted(text: str) -> bool:
    """Whether a text is arithmetic of whole numbers and shifts by less than 64."""
    try:
        tree = _tree(text)
    except (RecursionError, MemoryError):
        return False
    for node in ast.walk(tree) if tree is not None else [ast.Pass()]:
        if isinstance(node, ast.Constant):
            if type(node.value) is not int or node.value > _NUMBER:
                return False
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.LShift, ast.RShift)):
            if not isinstance(node.right, ast.Constant) or not isinstance(node.right.value, int):
                return False
            if node.right.value >= 64:
                return False
        elif not isinstance(node, (ast.BinOp, ast.UnaryOp, *_SHIFTS)):
            return False
    return True
