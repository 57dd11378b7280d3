"""Programs that print a known text and nothing else, by language: known to be right, or wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping

_JAVA = "public class Main {{ public static void main(String[] given) {{ System.out.println({text}); }} }}"
_QUOTED: Mapping[str, str] = {
    "javascript": "console.log({text});",
    "typescript": "console.log({text});",
    "c": "#include <stdio.h>\nint main(void) {{ puts({text}); return 0; }}",
    "cpp": "#include <cstdio>\nint main() {{ std::puts({text}); return 0; }}",
    "java": _JAVA,
    "go": 'package main\n\nimport "fmt"\n\nfunc main() {{\n\tfmt.Println({text})\n}}',
    "rust": 'fn main() {{ println!("{{}}", {text}); }}',
}
"""Languages whose texts stand in double quotes, with backslashes as in json."""
_SINGLE: Mapping[str, str] = {
    "ruby": "puts '{text}'",
    "perl": "print '{text}', \"\\n\";",
    "php": "<?php echo '{text}', \"\\n\";",
}
"""Languages whose texts in single quotes mean what they say, but for a quote and a backslash."""
_ALSO = {
    "": "python",
    "py": "python",
    "python3": "python",
    "js": "javascript",
    "ts": "typescript",
    "c++": "cpp",
    "golang": "go",
    "sh": "bash",
    "shell": "bash",
}


def printing(text: str, language: str) -> str | None:
    """A program that prints a text and a line's end; None: the language isn't known here, or the text has
    signs that languages write differently (any but those of ASCII).
    """
    name = _ALSO.get(language.lower(), language.lower())
    if name == "python":
        return f"print({text!r})"
    if not text.isascii() or not text.replace("\n", "").isprintable():
        return None
    if name == "bash":
        return "printf '%s\\n' '{}'".format(text.replace("'", "'\\''"))
    if name in _QUOTED:
        return _QUOTED[name].format(text=json.dumps(text))
    if name in _SINGLE:
        return _SINGLE[name].format(text=text.replace("\\", "\\\\").replace("'", "\\'"))
    return None
