"""Control-flow graphs out of what compilers write: GCC's tree dump, Rust's MIR, Java's byte code.

Runs inside the sandbox: blocks.py gcc|mir|javap, the text on standard input or in the file named second.
"""

import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import graphs


def gcc(text):
    """-fdump-tree-cfg: functions begin with `;; Function`, successors stand in `;; N succs { ... }`."""
    found, graph, block = [], None, None
    for line in text.splitlines():
        if match := re.match(r";; Function (.{1,200}?) \(", line):
            graph = {"name": match.group(1), "line": 0, "nodes": [], "edges": []}
            found.append(graph)
            block = None
        elif graph is None:
            continue
        elif match := re.match(r";; (\d+) succs \{([\d ]*)\}", line):
            for end in match.group(2).split():
                graph["edges"].append([int(match.group(1)), int(end), ""])
        elif match := re.match(r"\s*<bb (\d+)>", line):
            block = {"id": int(match.group(1)), "line": 0, "text": f"bb {match.group(1)}"}
            graph["nodes"].append(block)
        elif block is not None and (
            match := re.match(r"\s*\[[^\]:]{1,200}:(\d+):\d+[^\]]{0,100}\] (.*)", line)
        ):
            words = re.sub(r"\[[^\]]*\] ?", "", match.group(2)).strip()
            if not block["line"]:
                block["line"], block["text"] = int(match.group(1)), f"{match.group(1)}: {words}"
                graph["line"] = graph["line"] or block["line"]
    for graph in found:
        ids = {node["id"] for node in graph["nodes"]}
        graph["nodes"] += [{"id": 1, "line": 0, "text": "end"}] if ids else []
        graph["nodes"].sort(key=lambda node: (node["id"] == 1, node["id"]))
        graph["edges"] = [edge for edge in graph["edges"] if {*edge[:2]} <= ids | {1}]
    return found


def mir(text):
    """--emit=mir: `bbN: {` ... a last line with `-> bbM` or `-> [name: bbM, ...]`; unwinding is left out."""
    found, graph, block = [], None, None
    for line in text.splitlines():
        if match := re.match(
            r"(?:const |static )?(?:fn )?([\w:<>{}#@/. -]{1,200}?)\(.{0,2000}?\) -> .{0,500}\{\s*$", line
        ):
            graph = {"name": match.group(1), "line": 0, "nodes": [], "edges": []}
            found.append(graph)
        elif graph is None:
            continue
        elif match := re.match(r"    bb(\d+)( \(cleanup\))?: \{", line):
            block = (
                None
                if match.group(2)
                else {"id": int(match.group(1)), "line": 0, "text": f"bb{match.group(1)}"}
            )
            if block:
                graph["nodes"].append(block)
        elif line.startswith("    }"):
            block = None
        elif block is not None:
            place = re.search(r"// scope \d+ at [^:]{1,200}:(\d+):", line)
            words = re.sub(r"//.*", "", line).strip()
            if place and not block["line"]:
                block["line"] = int(place.group(1))
                graph["line"] = min(graph["line"] or block["line"], block["line"])
            if match := re.search(r"-> (?:\[(.*)\]|bb(\d+));?\s*$", words):
                block["text"] = words.split("->")[0].strip() or block["text"]
                if match.group(2):
                    graph["edges"].append([block["id"], int(match.group(2)), ""])
                for name, end in re.findall(r"([\w-]+): bb(\d+)", match.group(1) or ""):
                    if name not in ("unwind", "cleanup"):
                        graph["edges"].append(
                            [block["id"], int(end), "" if name in ("return", "success") else name]
                        )
            elif words in ("return;", "unreachable;", "resume;"):
                block["text"] = words[:-1]
    for graph in found:
        ids = {node["id"] for node in graph["nodes"]}
        graph["edges"] = [edge for edge in graph["edges"] if {*edge[:2]} <= ids]
        ends = [node["id"] for node in graph["nodes"] if node["text"] in ("return", "unreachable", "resume")]
        if ids:
            graph["nodes"].append({"id": 1 + max(ids), "line": 0, "text": "end"})
            graph["edges"] += [[one, 1 + max(ids), ""] for one in ends]
    return found


JUMPS = re.compile(r"(if\w*|goto(?:_w)?)\s+(\d+)")
LEAVES = re.compile(r"(?:[ailfd]?return|athrow)\b")


def javap(text):
    """javap -c -l -p: instructions by offset; blocks begin at targets of jumps and after them."""
    found, name, code, lines, switch = [], "", {}, {}, None

    def close():
        if code:
            found.append(method(name, code, lines))

    for line in text.splitlines():
        if re.match(r"  \S.*\)(?: throws .*)?;$", line):
            close()
            name, code, lines, switch = re.sub(r"\(.*", "", line).split()[-1], {}, {}, None
        elif match := re.match(r"\s+line (\d+): (\d+)$", line):
            lines[int(match.group(2))] = int(match.group(1))
        elif switch is not None:
            if match := re.match(r"\s+(-?\d+|default): (\d+)$", line):
                code[switch][1].append(int(match.group(2)))
            elif line.strip() == "}":
                switch = None
        elif match := re.match(r"\s+(\d+): (\w+)(.*)$", line):
            at, word = int(match.group(1)), match.group(2)
            jump = JUMPS.match(word + match.group(3))
            code[at] = (word, [int(jump.group(2))] if jump else [])
            if word.endswith("switch"):
                switch = at
    close()
    return found


def method(name, code, lines):
    order = sorted(code)
    starts = {order[0]}
    for at, after in zip(order, [*order[1:], None]):
        word, targets = code[at]
        starts.update(targets)
        if after is not None and (targets or LEAVES.match(word)):
            starts.add(after)
    starts = sorted(start for start in starts if start in code)
    block_of, current = {}, -1
    for at in order:
        current += at in starts
        block_of[at] = current
    graph = {"name": name, "line": min(lines.values(), default=0), "nodes": [], "edges": []}
    for number, start in enumerate(starts):
        line = lines.get(start) or max((one for at, one in lines.items() if at <= start), default=0)
        graph["nodes"].append({"id": number, "line": line, "text": f"line {line}: {code[start][0]}"})
    end = len(starts)
    graph["nodes"].append({"id": end, "line": 0, "text": "end"})
    for at, after in zip(order, [*order[1:], None]):
        word, targets = code[at]
        last = after is None or block_of[after] != block_of[at]
        for target in dict.fromkeys(targets):
            if target in block_of:
                graph["edges"].append([block_of[at], block_of[target], ""])
        if LEAVES.match(word):
            graph["edges"].append([block_of[at], end, ""])
        elif last and after is not None and not word.startswith("goto") and not word.endswith("switch"):
            graph["edges"].append([block_of[at], block_of[after], ""])
    return graph


def main():
    readers = {"gcc": gcc, "mir": mir, "javap": javap}
    with open(sys.argv[2] if len(sys.argv) > 2 else 0, encoding="utf-8", errors="replace") as file:
        text = file.read(16 << 20)
    told = graphs.report(readers[sys.argv[1]](text))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
