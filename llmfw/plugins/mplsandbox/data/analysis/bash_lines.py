"""Reads a trace of Bash (PS4 with time, file and line): which lines ran, how often and for how long.

Runs inside the sandbox: bash_lines.py TRACE SOURCE. Lines that can run are found by their words.
"""

import json
import re
import sys

BARE = re.compile(
    r"(?:fi|done|else|then|do|esac|\{|\}|;;|;&|\)|\(|in)(?:\s*[;&|<>].*)?$|(?:function\s+)?[\w-]+\s*\(\)\s*\{?$|"
    r"function\s+[\w-]+\s*\{?$|[^()\s]+\)(?:\s*;;)?$"
)


def executable(text):
    found, ends, joined = set(), "", False
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if ends:
            ends = "" if words == ends else ends
            continue
        part_of_last, joined = joined, words.endswith("\\")
        if match := re.search(r"<<-?\s*(['\"]?)(\w+)\1", words):
            ends = match.group(2)
        if not words or words.startswith("#") or part_of_last or BARE.match(words):
            continue
        found.add(number)
    return found


def main(trace, source):
    with open(source, encoding="utf-8", errors="replace") as file:
        can = executable(file.read())
    hits, costs, last = {}, {}, None
    with open(trace, encoding="utf-8", errors="replace") as file:
        for entry in file:
            match = re.match(r"\++(\d+[.,]\d+)\|([^|]*)\|(\d+)\|", entry[:500])
            if match and match.group(2) == source:
                now, line = float(match.group(1).replace(",", ".")), int(match.group(3))
                hits[line] = hits.get(line, 0) + 1
                if last is not None:
                    costs[last[1]] = costs.get(last[1], 0.0) + max(0.0, now - last[0])
                last = (now, line)
    print(json.dumps({"executable": sorted(can | set(hits)), "hits": hits, "costs": costs}))


main(*sys.argv[1:3])
