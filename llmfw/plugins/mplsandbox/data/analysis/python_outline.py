"""What a Python program is made of: outline, control-flow graphs, numbers; runs inside the sandbox."""

import ast
import io
import json
import math
import os
import sys
import tokenize

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import graphs

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = DEFINITIONS[:2]
MATCH = getattr(ast, "Match", type(None))
LOOPS = (ast.For, ast.AsyncFor, ast.While)
TRIES = (ast.Try, ast.TryStar) if hasattr(ast, "TryStar") else (ast.Try,)


def statements(node):
    """Blocks of statements directly inside a node, with a name each."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list) and block:
            yield name, block
    for handler in getattr(node, "handlers", ()):
        yield "except", handler.body
    for case in getattr(node, "cases", ()):
        yield "case", case.body


def headline(node, source):
    line = source[node.lineno - 1].strip() if node.lineno <= len(source) else ""
    return line[:60]


# The outline.


def outline(tree, source):
    lines, definitions = [], []
    wait = [(tree, 0, definitions)]
    while wait and len(lines) < 2000:
        node, depth, into = wait.pop()
        if isinstance(node, ast.stmt):
            end = node.end_lineno or node.lineno
            lines.append(f"{'  ' * depth}{type(node).__name__} {node.lineno}-{end}: {headline(node, source)}")
            depth += 1
        if isinstance(node, DEFINITIONS):
            made = {
                "kind": type(node).__name__,
                "name": node.name,
                "line": node.lineno,
                "end": node.end_lineno,
                "inside": [],
            }
            if isinstance(node, FUNCTIONS):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                made["parameters"] = [one.arg for one in every]
            into.append(made)
            into = made["inside"]
        children = [child for _, block in statements(node) for child in block]
        wait.extend((child, depth, into) for child in reversed(children))
    return "\n".join(lines), definitions


# Control flow.


class Graph:
    """Builds one function's graph: blocks of statements, and edges where control goes."""

    def __init__(self, name, line, source):
        self.source, self.loops, self.catches = source, [], []
        self.graph = {"name": name, "line": line, "nodes": [], "edges": []}
        self.end = None

    def node(self, line, text):
        self.graph["nodes"].append({"id": len(self.graph["nodes"]), "line": line, "text": text})
        return len(self.graph["nodes"]) - 1

    def join(self, ends, target):
        for start, label in ends:
            if [start, target, label] not in self.graph["edges"]:
                self.graph["edges"].append([start, target, label])

    def build(self, body):
        start = self.node(self.graph["line"], "start")
        self.leaves = []
        ends = self.block(body, [(start, "")])
        self.end = self.node(0, "end")
        self.join([*ends, *self.leaves], self.end)
        return self.graph

    def block(self, body, ends):
        plain = None
        for statement in body:
            if not ends:
                break
            kind = type(statement)
            if kind in (ast.If, MATCH, *LOOPS, *TRIES, ast.With, ast.AsyncWith):
                plain, ends = None, self.compound(statement, ends)
                continue
            if plain is None:
                plain = self.node(statement.lineno, headline(statement, self.source))
                self.join(ends, plain)
                ends = [(plain, "")]
            if kind in (ast.Return, ast.Raise):
                caught = kind is ast.Raise and self.catches
                self.catches[-1].append((plain, "raise")) if caught else self.leaves.append((plain, ""))
                ends = []
            elif kind in (ast.Break, ast.Continue) and self.loops:
                (self.loops[-1][0] if kind is ast.Break else self.loops[-1][1]).append((plain, ""))
                ends = []
        return ends

    def compound(self, statement, ends):
        head = self.node(statement.lineno, headline(statement, self.source))
        self.join(ends, head)
        kind = type(statement)
        if kind is ast.If:
            return [
                *self.block(statement.body, [(head, "yes")]),
                *self.block(statement.orelse, [(head, "no")]),
            ]
        if kind is MATCH:
            out, all_caught = [], False
            for case in statement.cases:
                out += self.block(case.body, [(head, "case")])
                all_caught = all_caught or (
                    isinstance(case.pattern, ast.MatchAs)
                    and case.pattern.pattern is None
                    and case.guard is None
                )
            return out if all_caught else [*out, (head, "no case")]
        if kind in LOOPS:
            self.loops.append(([], []))
            body = self.block(statement.body, [(head, "yes")])
            breaks, continues = self.loops.pop()
            self.join([*body, *continues], head)
            forever = kind is ast.While and isinstance(statement.test, ast.Constant) and statement.test.value
            rest = self.block(statement.orelse, [] if forever else [(head, "no")])
            return [*rest, *breaks]
        if kind in TRIES:
            self.catches.append([(head, "raise")])
            out = self.block(statement.body, [(head, "")])
            raised = self.catches.pop()
            out = self.block(statement.orelse, out)
            for handler in statement.handlers:
                at = self.node(handler.lineno, headline(handler, self.source))
                self.join(raised, at)
                out += self.block(handler.body, [(at, "")])
            if not statement.handlers:
                out += raised[1:]
            return self.block(statement.finalbody, out) if statement.finalbody else out
        return self.block(statement.body, [(head, "")])


def flows(tree, source):
    found, wait = [Graph("module", 1, source).build(tree.body)], [(tree, "")]
    while wait:
        node, prefix = wait.pop()
        for _, block in statements(node):
            for child in block:
                name = prefix
                if isinstance(child, DEFINITIONS):
                    name = prefix + child.name + "."
                if isinstance(child, FUNCTIONS):
                    found.append(Graph(prefix + child.name, child.lineno, source).build(child.body))
                wait.append((child, name))
    return sorted(found[:300], key=lambda graph: graph["line"] if graph["name"] != "module" else 0)


# Numbers.


def decisions(node):
    """Points at which control can part: McCabe's number is one more."""
    if isinstance(node, TRIES):
        return len(node.handlers) + bool(node.orelse)
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, (ast.If, ast.IfExp, ast.Assert)):
        return 1
    if isinstance(node, LOOPS):
        return 1 + bool(node.orelse)
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, MATCH):
        rest = any(isinstance(one.pattern, ast.MatchAs) and one.pattern.pattern is None for one in node.cases)
        return max(0, len(node.cases) - rest)
    return 0


def functions(tree):
    """(name, line, end, McCabe's number) of each function; what's defined inside one counts for itself."""
    found, wait = [], [(tree, "", None)]
    while wait:
        node, prefix, owner = wait.pop()
        if owner is not None:
            owner[3] += decisions(node)
        if isinstance(node, DEFINITIONS):
            name = prefix + node.name
            if isinstance(node, FUNCTIONS):
                owner = [name, node.lineno, node.end_lineno, 1]
                found.append(owner)
            prefix = name + "."
        wait.extend((child, prefix, owner) for child in ast.iter_child_nodes(node))
    return sorted(found, key=lambda one: one[1])


def halstead(tree):
    """Operators and operands of expressions; an operand is known by its function and its text."""
    operators, operands, seen, known = 0, 0, set(), set()
    wait = [(tree, "")]
    while wait:
        node, scope = wait.pop()
        if isinstance(node, FUNCTIONS):
            scope = node.name
        ops, args = (), ()
        if isinstance(node, ast.BinOp):
            ops, args = (node.op,), (node.left, node.right)
        elif isinstance(node, ast.UnaryOp):
            ops, args = (node.op,), (node.operand,)
        elif isinstance(node, ast.BoolOp):
            ops, args = (node.op,), node.values
        elif isinstance(node, ast.AugAssign):
            ops, args = (node.op,), (node.target, node.value)
        elif isinstance(node, ast.Compare):
            ops, args = node.ops, (node.left, *node.comparators)
        operators += len(ops)
        operands += len(args)
        seen.update(type(one).__name__ for one in ops)
        known.update((scope, operand(one)) for one in args)
        wait.extend((child, scope) for child in ast.iter_child_nodes(node))
    return operators, operands, len(seen), len(known)


def operand(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant):
        return repr(node.value)
    return f"{node.lineno}:{node.col_offset}:{type(node).__name__}"


def raw(text, tree):
    """Lines: all, blank, of comment alone, of text that is no code, of code; comments; logical lines."""
    lines = text.splitlines()
    comments, alone, strings = 0, set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    logical = 0
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            strings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, (ast.stmt, ast.ExceptHandler, getattr(ast, "match_case", ast.ExceptHandler))):
            logical += 1
        logical += len(getattr(node, "decorator_list", ()))
        if isinstance(node, (*LOOPS, *TRIES)) and node.orelse:
            logical += 1
        if isinstance(node, TRIES) and node.finalbody:
            logical += 1
        if (
            isinstance(node, ast.If)
            and node.orelse
            and not (len(node.orelse) == 1 and is_elif(node.orelse[0], lines))
        ):
            logical += 1
    blank = {number for number, line in enumerate(lines, 1) if not line.strip()}
    several = {
        n
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.end_lineno != node.lineno
        for n in range(node.lineno, node.end_lineno + 1)
    }
    code = len(lines) - len(blank | alone | strings)
    return {
        "lines": len(lines),
        "blank": len(blank),
        "code": code,
        "comments": comments,
        "text lines": len(several - blank),
        "logical": logical,
    }


def is_elif(node, lines):
    return isinstance(node, ast.If) and lines[node.lineno - 1].lstrip().startswith("elif")


def index(volume, number, logical, percent):
    """The maintainability index on 0 to 100; comments in percent of code, taken for degrees.

    As radon has it, each method counts as one more way through the program.
    """
    if volume <= 0 or logical <= 0:
        return 100.0
    bonus = 50 * math.sin(math.sqrt(2.46 * math.radians(percent)))
    value = 171 - 5.2 * math.log(volume) - 0.23 * number - 16.2 * math.log(logical) + bonus
    return min(100.0, max(0.0, 100 * value / 171))


def main(path):
    with open(path, encoding="utf-8", errors="strict") as file:
        text = file.read()
    tree = ast.parse(text)
    source = text.splitlines()
    words, definitions = outline(tree, source)
    told = graphs.report(flows(tree, source))
    numbers = raw(text, tree)
    every = functions(tree)
    total = 1 + sum(decisions(node) for node in ast.walk(tree))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    methods = sum(isinstance(child, FUNCTIONS) for node in classes for child in node.body)
    operators, operands, kinds, names = halstead(tree)
    vocabulary, length = kinds + names, operators + operands
    volume = length * math.log2(vocabulary) if vocabulary else 0.0
    difficulty = kinds * operands / (2 * names) if names else 0.0
    percent = (
        100 * (numbers["comments"] + numbers["text lines"]) / numbers["code"] if numbers["code"] else 0.0
    )
    told["metrics"].update(numbers)
    told["metrics"].update({
        "functions": len(every), "classes": len(classes),
        "complexity": total, "complexity max": max((one[3] for one in every), default=total),
        "halstead vocabulary": vocabulary, "halstead length": length, "halstead volume": volume,
        "halstead difficulty": difficulty, "halstead effort": difficulty * volume,
        "maintainability": index(volume, total + methods, numbers["logical"], percent),
    })  # fmt: skip
    told["artefacts"]["ast"] = words
    told["artefacts"]["outline"] = json.dumps(definitions)
    told["artefacts"]["functions"] = json.dumps(
        [{"name": name, "line": line, "end": end, "complexity": number} for name, line, end, number in every]
    )
    print(json.dumps(told))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {str(error)[:200]}"}))
