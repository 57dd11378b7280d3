"""Sizes of a program in any language: lines, functions, nesting, decisions; by words, hence approximate.

Runs inside the sandbox: sizes.py LANG FILE numbers|smell.
"""

import json
import re
import sys

C = ("//", "/*", "*/")
COMMENTS = {
    "python": ("#", "", ""), "bash": ("#", "", ""), "perl": ("#", "", ""), "ruby": ("#", "=begin", "=end"),
    "r": ("#", "", ""), "lua": ("--", "--[[", "]]"), "haskell": ("--", "{-", "-}"), "ocaml": ("", "(*", "*)"),
    "php": ("//", "/*", "*/"),
}  # fmt: skip
WORDS = r"\b(?:if|elif|elsif|elseif|unless|for|foreach|while|until|loop|case|when|catch|except|rescue)\b"
SIGNS = r"&&|\|\||\?(?![.?:])"
DECISIONS = {
    "python": r"\b(?:if|elif|for|while|except|case|and|or|assert)\b",
    "lua": r"\b(?:if|elseif|for|while|until|and|or)\b",
    "bash": r"\b(?:if|elif|for|while|until)\b|\)\s*$|&&|\|\|",
    "rust": r"\b(?:if|for|while|loop)\b|=>|&&|\|\||\?(?=[;.)])", "go": r"\b(?:if|for|case)\b|&&|\|\|",
    "ocaml": r"\b(?:if|for|while|when)\b|->|&&|\|\|", "haskell": r"\bif\b|^\s*\||->|&&|\|\|",
    "kotlin": r"\b(?:if|for|while|catch)\b|->|&&|\|\||\?:",
    "scala": r"\b(?:if|for|while|case|catch)\b|&&|\|\|",
    "ruby": WORDS + r"|\b(?:and|or)\b|&&|\|\|", "perl": WORDS + r"|\b(?:and|or)\b|&&|\|\|",
    "r": r"\b(?:if|for|while|repeat)\b|&&|\|\|",
}  # fmt: skip
NAMED = {
    "python": r"\s*(?:async\s+)?def\s+(\w+)", "ruby": r"\s*def\s+([\w.?!]+)", "rust": r".*?\bfn\s+(\w+)",
    "go": r"func\s+(?:\([^)]*\)\s*)?(\w+)", "bash": r"\s*(?:function\s+([\w-]+)|([\w-]+)\s*\(\))",
    "perl": r"\s*sub\s+(\w+)", "php": r".*?\bfunction\s+&?(\w+)",
    "lua": r"\s*(?:local\s+)?function\s+([\w.:]+)",
    "kotlin": r".*?\bfun\s+(?:<[^>]*>\s*)?([\w.]+)", "scala": r".*?\bdef\s+(\w+)",
    "r": r"\s*([\w.]+)\s*(?:<-|=)\s*function\b",
    "javascript": r"\s*(?:export\s+)?(?:async\s+)?function\s*\*?\s*(\w+)|"
    r"\s*(?:const|let|var)\s+(\w+)\s*=\s*(?:async\s*)?(?:function\b|\([^()]*\)\s*=>|\w+\s*=>)",
    "ocaml": r"\s*(?:let|and)\s+(?:rec\s+)?(\w+)\s+[\w(~?]", "haskell": r"(\w+)\s*::.*->",
}  # fmt: skip
NAMED["typescript"] = (
    r"\s*(?:export\s+)?(?:async\s+)?function\s*\*?\s*(\w+)|\s*(?:const|let|var)\s+(\w+)\s*=\s*(?:async\s*)?\("
)
CALLED = r"\s*(?:[\w:<>*&,\[\]~]+\s+)+[*&]*([\w:~]+)\s*\([^;]*$"
NOT_NAMES = {
    "if",
    "for",
    "while",
    "switch",
    "return",
    "else",
    "catch",
    "new",
    "do",
    "sizeof",
    "using",
    "case",
}


def bare(text, lang):
    """The text's lines without comments and without what's in quotes. -> lines, and which had a comment."""
    start, opens, closes = COMMENTS.get(lang, C)
    marks = (
        "'" if lang in ("c", "cpp", "java", "csharp", "kotlin", "scala", "rust", "haskell", "ocaml") else "'`"
    )
    inside, lines, comments = False, [], set()
    for number, line in enumerate(text.splitlines(), 1):
        line, out, at = line[:2000], [], 0
        while at < len(line):
            if inside:
                end = line.find(closes, at)
                comments.add(number)
                at, inside = (len(line), True) if end < 0 else (end + len(closes), False)
            elif opens and line.startswith(opens, at):
                inside, at = True, at + len(opens)
                comments.add(number)
            elif ((start and line.startswith(start, at)) or (lang == "php" and line[at] == "#")) and not (
                lang == "bash" and at and not line[at - 1].isspace()
            ):
                comments.add(number)
                break
            elif line[at] == '"' or line[at] in marks:
                quote, end = line[at], at + 1
                while end < len(line) and line[end] != quote:
                    end += 2 if line[end] == "\\" else 1
                if (quote == "'" and end >= len(line)) or (quote == "'" and marks == "'" and end - at > 11):
                    end = at  # a lifetime, a prime or a label
                out.append('""' if end > at else " ")
                at = end + 1
            else:
                out.append(line[at])
                at += 1
        lines.append("".join(out))
    return lines, comments


def measure(text, lang):
    lines, comments = bare(text, lang)
    decisions = re.compile(DECISIONS.get(lang, WORDS + "|" + SIGNS))
    named = re.compile(NAMED.get(lang, CALLED))
    functions, depth, deepest, deep_line, indents = [], 0, 0, 0, [0]
    by_indent = lang in ("python", "haskell", "ocaml", "lua", "ruby", "bash")
    counts = []
    for number, line in enumerate(lines, 1):
        counts.append(len(decisions.findall(line)))
        match = named.match(line) if depth <= 3 else None
        name = next((one for one in match.groups() if one), "") if match else ""
        if name and name not in NOT_NAMES and line.split()[0] not in NOT_NAMES:
            functions.append({"name": name, "line": number})
        if by_indent and line.strip():
            width = len(line) - len(line.lstrip())
            while indents[-1] > width:
                indents.pop()
            if width > indents[-1]:
                indents.append(width)
            depth = len(indents) - 1
        elif not by_indent:
            depth = max(0, depth + line.count("{") - line.count("}"))
        if depth > deepest:
            deepest, deep_line = depth, number
    for function, after in zip(functions, [*functions[1:], {"line": len(lines) + 1}]):
        function["end"] = after["line"] - 1
        inside = range(function["line"] - 1, after["line"] - 1)
        function["complexity"] = 1 + sum(counts[i] for i in inside)
        function["code"] = sum(bool(lines[i].strip()) for i in inside)
    code = sum(bool(line.strip()) for line in lines)
    metrics = {
        "lines": len(lines), "code": code, "comments": len(comments),
        "blank": sum(not line.strip() for line in text.splitlines()), "functions": len(functions),
        "complexity approximate": sum(counts) + max(1, len(functions)), "nesting": deepest,
        "longest line": max(map(len, text.splitlines()), default=0),
    }  # fmt: skip
    return metrics, functions, deep_line


def smells(text, metrics, functions, deep_line):
    def remark(rule, line, message, symbol=""):
        found.append({"rule": rule, "severity": "info", "line": line, "message": message, "symbol": symbol})

    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > 120:
            remark("long-line", number, f"the line has {len(line)} characters")
    for one in functions:
        if one["code"] > 60:
            words = f"{one['name']} has {one['code']} lines of code"
            remark("long-function", one["line"], words, one["name"])
        if one["complexity"] > 15:
            words = f"{one['name']} has about {one['complexity']} ways through it"
            remark("many-decisions", one["line"], words, one["name"])
    if metrics["nesting"] > 6:
        remark("deep-nesting", deep_line, f"blocks are nested {metrics['nesting']} deep")
    return found


def main(lang, path, what):
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(4 << 20)
    metrics, functions, deep_line = measure(text, lang)
    if what == "smell":
        print(json.dumps({"findings": smells(text, metrics, functions, deep_line)[:500]}))
    else:
        print(json.dumps({"metrics": metrics, "artefacts": {"functions": json.dumps(functions[:1000])}}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
