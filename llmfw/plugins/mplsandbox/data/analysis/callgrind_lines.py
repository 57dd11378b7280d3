"""Reads what callgrind recorded: which lines of a compiled program ran and how many instructions they took.

Runs inside the sandbox: callgrind_lines.py RECORD SOURCE PROGRAM.
"""

import json
import re
import subprocess
import sys

NO_CODE = {"rs": r"\s*(?:use\b|mod\b|extern\b|#|//|\}|$)", "": r"\s*(?:#|//|\}|$)"}


def read(record, source):
    """Callgrind's format: names are given once and then by number; lines may be relative to the last one."""
    lines, functions, names = {}, {}, {"f": {}, "fn": {}}
    file = fn = ""
    line, call = 0, False

    def name(kind, word):
        match = re.match(r"\((\d+)\)(?: (.*))?", word)
        if not match:
            return word
        if match.group(2) is not None:
            names[kind][match.group(1)] = match.group(2)
        return names[kind].get(match.group(1), "")

    with open(record, encoding="utf-8", errors="replace") as text:
        for entry in text:
            key, sign, word = entry.rstrip("\n").partition("=")
            if sign and key in ("fl", "fi", "fe", "cfi", "cfl"):
                told = name("f", word)
                if key[0] != "c":
                    file = told
            elif sign and key in ("fn", "cfn"):
                told = name("fn", word)
                if key == "fn":
                    fn = told
            elif sign and key == "calls":
                call = True
            elif match := re.match(r"(\*|[+-]?\d+) (\d+)$", entry.rstrip()):
                place = match.group(1)
                line = line if place == "*" else line + int(place) if place[0] in "+-" else int(place)
                if call:
                    call = False
                elif file.rpartition("/")[2] == source:
                    cost = int(match.group(2))
                    lines[line] = lines.get(line, 0) + cost
                    at = functions.setdefault(fn, [line, 0])
                    at[0], at[1] = min(at[0] or line, line), at[1] + cost
    lines.pop(0, None)
    return lines, functions


def executable(program, source):
    told = subprocess.run(
        ["objdump", "--dwarf=decodedline", program], capture_output=True, text=True, errors="replace"
    )
    pattern = re.compile(rf"(?:\S*/)?{re.escape(source)}\s+(\d+)\s+0x")
    found = {int(match.group(1)) for match in map(pattern.match, told.stdout.splitlines()) if match}
    with open(source, encoding="utf-8", errors="replace") as file:
        text = file.read().splitlines()
    bare = re.compile(NO_CODE.get(source.rpartition(".")[2], NO_CODE[""]))
    return {line for line in found if 0 < line <= len(text) and not bare.match(text[line - 1])}


def main(record, source, program):
    lines, functions = read(record, source)
    can = executable(program, source)
    print(json.dumps({
        "executable": sorted(can), "hits": {line: 1 for line in lines if line in can}, "costs": lines,
        "functions": [{"name": name[:120], "line": at[0], "cost": at[1]} for name, at in
                      sorted(functions.items(), key=lambda one: -one[1][1])[:200]],
    }))  # fmt: skip


main(*sys.argv[1:4])
