"""What functions of a Python program cost (time), or where its memory goes (memory); runs inside the sandbox.

python_profile.py time|memory SOURCE REPORT PROGRAM [ARGUMENTS]
"""

import cProfile
import json
import os
import sys
import tracemalloc

WHAT, SOURCE, REPORT, PROGRAM = sys.argv[1:5]


def own(name):
    return name == SOURCE or name.endswith("/" + SOURCE)


def functions(profile):
    profile.create_stats()
    found = []
    for (file, line, name), (_, calls, alone, total, _) in profile.stats.items():
        if own(file):
            found.append({"name": name, "line": line, "calls": calls, "cost": alone, "total": total})
    found.sort(key=lambda one: -one["cost"])
    return {"functions": found[:200]}


def memory():
    _, peak = tracemalloc.get_traced_memory()
    held = {}
    for one in tracemalloc.take_snapshot().statistics("lineno"):
        frame = one.traceback[0]
        if own(frame.filename):
            held[frame.lineno] = held.get(frame.lineno, 0.0) + one.size / 2**20
    return {"costs": held, "metrics": {"peak MiB": peak / 2**20}}


def main():
    program = PROGRAM
    sys.argv = sys.argv[4:]
    sys.path[0:1] = [os.path.dirname(os.path.abspath(program))]
    with open(program, encoding="utf-8") as file:
        code = compile(file.read(), program, "exec", dont_inherit=True)
    scope = {"__name__": "__main__", "__file__": program, "__builtins__": __builtins__}
    profile = cProfile.Profile()
    if WHAT == "memory":
        tracemalloc.start()
    try:
        if WHAT == "memory":
            exec(code, scope)  # noqa: S102 - inside the sandbox
        else:
            profile.runctx(code, scope, scope)
    finally:
        told = memory() if WHAT == "memory" else functions(profile)
        with open(REPORT, "w") as file:
            json.dump(told, file)


main()
