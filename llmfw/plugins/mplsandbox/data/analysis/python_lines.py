"""Which lines of a Python program run, how often and for how long; runs inside the sandbox.

python_lines.py SOURCE REPORT PROGRAM [ARGUMENTS]: PROGRAM is run; lines of SOURCE are watched.
"""

import ast
import json
import os
import sys
import threading
import time

SOURCE, REPORT, PROGRAM = sys.argv[1:4]
HITS, SECONDS = {}, {}
STACK = {}


def own(code):
    return code.co_filename == SOURCE or code.co_filename.endswith("/" + SOURCE)


def charge(now, state):
    if state[0] is not None:
        SECONDS[state[0]] = SECONDS.get(state[0], 0.0) + now - state[1]


def watch(frame, event, _):
    """A new frame: lines of ours are counted; a line's time ends where the next one of ours begins."""
    if not own(frame.f_code):
        return None
    return line


def line(frame, event, _):
    now = time.perf_counter()
    state = STACK.setdefault(threading.get_ident(), [None, now])
    if event == "line":
        charge(now, state)
        HITS[frame.f_lineno] = HITS.get(frame.f_lineno, 0) + 1
        state[0] = frame.f_lineno
    elif event == "return":
        charge(now, state)
        caller = frame.f_back
        while caller is not None and not own(caller.f_code):
            caller = caller.f_back
        state[0] = caller.f_lineno if caller is not None else None
    state[1] = time.perf_counter()
    return line


def statements():
    """Lines of statements, and for each line of the source the statement it belongs to."""
    with open(SOURCE, encoding="utf-8") as file:
        text = file.read()
    first, place = set(), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)) and node.body:
            lead = node.body[0]
            if (
                isinstance(lead, ast.Expr)
                and isinstance(lead.value, ast.Constant)
                and isinstance(lead.value.value, str)
            ):
                lead.docstring = True
        if isinstance(node, ast.ExceptHandler):
            first.add(node.lineno)
            place.setdefault(node.lineno, node.lineno)
            continue
        if not isinstance(node, ast.stmt) or isinstance(node, (ast.Global, ast.Nonlocal)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # no code is made of it
        inner = min(
            (
                child.lineno
                for name in ("body", "handlers", "cases")
                for child in getattr(node, name, ())
                if hasattr(child, "lineno")
            ),
            default=None,
        )
        start = node.lineno
        end = inner - 1 if inner is not None and inner > start else node.end_lineno or start
        for one in getattr(node, "decorator_list", ()):
            first.add(one.lineno)
            place.update(dict.fromkeys(range(one.lineno, one.end_lineno + 1), one.lineno))
        if isinstance(node, (ast.Try, getattr(ast, "TryStar", ast.Try))):
            end = start
        first.add(start)
        place.update(dict.fromkeys(range(start, end + 1), start))
    return first, place


def main():
    program = PROGRAM
    sys.argv = sys.argv[3:]
    sys.path[0:1] = [os.path.dirname(os.path.abspath(program))]
    with open(program, encoding="utf-8") as file:
        code = compile(file.read(), program, "exec", dont_inherit=True)
    scope = {"__name__": "__main__", "__file__": program, "__builtins__": __builtins__}
    threading.settrace(watch)
    sys.settrace(watch)
    try:
        exec(code, scope)  # noqa: S102 - inside the sandbox
    finally:
        sys.settrace(None)
        threading.settrace(None)
        first, place = statements()
        hits, seconds = {}, {}
        for number, count in list(HITS.items()):
            start = place.get(number, number)
            hits[start] = max(hits.get(start, 0), count)
        for number, spent in list(SECONDS.items()):
            start = place.get(number, number)
            seconds[start] = seconds.get(start, 0.0) + spent
        with open(REPORT, "w") as file:
            json.dump({"executable": sorted(first), "hits": hits, "costs": seconds}, file)


main()
