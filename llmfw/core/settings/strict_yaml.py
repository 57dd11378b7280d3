"""YAML without surprises: the core schema of YAML 1.2 without tags and merge keys; values know their places.

Only ``true`` and ``false`` are booleans (``yes`` and ``on`` are text), ``1e-5`` is a float,
``010`` and ``12:30:00`` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionStartEvent, DocumentStartEvent, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from llmfw.core.errors import UsageError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 100_000
"""Values after aliases are expanded."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"(?P<inf>[-+]?\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
_ESCAPED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_BOOLS = dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STRUCTURED = frozenset("[{\"'|>&*!%@`")
"""First characters of a command line value that is more than one plain word."""


@dataclass(frozen=True)
class Document:
    """What a file says. ``lines`` and ``texts`` are keyed by dotted key, list items ``key[0]``."""

    data: Any
    file: str | None
    lines: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """Unquoted scalars only: a revision ``1e5`` stays ``1e5`` where text is wanted."""


def join(parent: str, key: str) -> str:
    """A dotted key."""
    return f"{parent}.{key}" if parent else key


def plain(text: str) -> Any:
    """What an unquoted scalar means: None, bool, int, float or its text (also where a number overflows)."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) > 400:
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if special := _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1)) if special["inf"] else float("nan")
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text


def load_file(path: Path) -> Document:
    """Read a file of settings.

    Raises:
        UsageError: no such file, not UTF-8, too large, not YAML of the strict kind, or no mapping at the top.
    """
    try:
        raw = _read(path) if path.is_file() else _read_once(path)
    except OSError as error:
        what = f"can't be read: {error.strerror or error}"
        raise UsageError("CONFIG-FILE", what, mend="check the path and its permissions", file=path) from error
    if len(raw) > MAX_BYTES:
        what = f"is larger than {MAX_BYTES} bytes"
        raise UsageError("CONFIG-FILE", what, mend="give --config a file of settings, not of data", file=path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(
            "CONFIG-YAML",
            f"byte 0x{raw[error.start]:02x} isn't UTF-8",
            mend="save the file as UTF-8",
            file=path,
            line=line,
        ) from error
    document = load(text, file=str(path))
    if document.data is None:
        return Document({}, document.file)
    if not isinstance(document.data, dict):
        raise UsageError(
            "CONFIG-YAML",
            f"holds a {kind_of(document.data)} where settings are expected",
            mend="write KEY: VALUE lines",
            file=path,
            line=1,
        )
    return document


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


@cache
def _read_once(path: Path) -> bytes:
    """A pipe (``--config <(...)``) gives its text once, but a configuration may be merged more than once."""
    return _read(path)


def load(text: str, *, file: str | None = None, key: str = "") -> Document:
    """Parse one YAML document; plain scalars mean what ``plain`` says. ``key`` is the dotted key of the
    whole.

    Raises:
        UsageError: anything that the strict kind of YAML doesn't have, with its line.
    """
    if bad := _FORBIDDEN.search(text):
        raise UsageError(
            "CONFIG-YAML",
            f"character U+{ord(bad[0]):04X} can't stand in YAML",
            mend='remove it, or write it as an escape in double quotes ("\\u....")',
            file=file,
            line=text.count("\n", 0, bad.start()) + 1,
        )
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    except _Refused as refused:
        raise UsageError(
            "CONFIG-YAML", refused.what, mend=refused.mend, file=file, line=refused.line
        ) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, file) from error
    except yaml.YAMLError as error:
        raise UsageError("CONFIG-YAML", str(error), mend="mend the YAML", file=file) from error
    finally:
        loader.dispose()
    if node is None:
        return Document(None, file)
    build = _Build(file)
    build.measure(node)
    return Document(build.value(node, key), file, build.lines, build.texts)


def parse_value(text: str, *, key: str) -> Document:
    """A value of the command line; lists, maps and quotes are those of YAML.

    ``run.name=fit #3`` and ``data=a: b.jsonl`` are plain text: no comments and block mappings on one line.

    Raises:
        UsageError: nothing stands behind the equals sign, or the value can't be parsed.
    """
    text = text.strip()
    if not text:
        raise UsageError(
            "CONFIG-VALUE", "the value is empty", mend=f"write {key}=null or {key}='\"\"'", key=key
        )
    if text[0] not in _STRUCTURED:
        if bad := _FORBIDDEN.search(text):
            raise UsageError(
                "CONFIG-VALUE", f"character U+{ord(bad[0]):04X} can't be used", mend="remove it", key=key
            )
        return Document(plain(text), None, texts={key: text})
    try:
        parsed = load(text, key=key)
        return Document(parsed.data, None, texts=parsed.texts)
    except UsageError as error:
        raise UsageError(
            "CONFIG-VALUE",
            f"{text!r} can't be parsed: {error.what}",
            mend=f"{error.mend}; text with special characters goes into quotes: {key}='\"...\"'",
            key=key,
        ) from error


class _Refused(Exception):
    def __init__(self, line: int, what: str, mend: str) -> None:
        super().__init__(what)
        self.line, self.what, self.mend = line, what, mend


class _Loader(yaml.SafeLoader):
    """PyYAML's parser, refusing what the strict kind doesn't have; it constructs nothing."""

    depth = 0

    def compose_document(self) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            raise _Refused(_line(event), "directives (%YAML, %TAG) aren't used here", "remove the line")
        return super().compose_document()

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = _line(event)
        if isinstance(event, (ScalarEvent, CollectionStartEvent)) and event.tag is not None:
            raise _Refused(line, f"tag {event.tag!r} isn't allowed", "write a plain value")
        anchor = getattr(event, "anchor", None)
        if isinstance(event, AliasEvent) and anchor not in self.anchors:
            raise _Refused(
                line,
                f"alias *{anchor} has no anchor above it",
                'put text that begins with * in quotes, or write "&" before the value',
            )
        if anchor is not None and not isinstance(event, AliasEvent) and anchor in self.anchors:
            raise _Refused(line, f"anchor &{anchor} is defined twice", "give each anchor a name of its own")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused(line, f"more than {MAX_DEPTH} levels deep", "flatten the value")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Build:
    """Turns the node graph into plain values; aliases become copies."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.lines: dict[str, int] = {}
        self.texts: dict[str, str] = {}

    def error(self, node: Node, what: str, mend: str, key: str | None = None) -> UsageError:
        return UsageError("CONFIG-YAML", what, mend=mend, file=self.file, line=_line(node), key=key or None)

    def measure(self, root: Node) -> None:
        """Refuse cycles, and graphs that are too large once every alias is written out."""
        known: dict[int, tuple[int, int]] = {}
        open_nodes: set[int] = set()

        def size_and_depth(node: Node) -> tuple[int, int]:
            if id(node) in open_nodes:
                raise self.error(node, "an alias contains itself", "write the value out")
            if id(node) not in known:
                open_nodes.add(id(node))
                parts = [size_and_depth(child) for child in _children(node)]
                open_nodes.discard(id(node))
                known[id(node)] = (
                    1 + sum(size for size, _ in parts),
                    1 + max((depth for _, depth in parts), default=0),
                )
            return known[id(node)]

        size, depth = size_and_depth(root)
        if size > MAX_VALUES:
            raise self.error(root, f"more than {MAX_VALUES} values once aliases are written out", "use fewer")
        if depth > MAX_DEPTH:
            raise self.error(root, f"more than {MAX_DEPTH} levels deep", "flatten the value")

    def value(self, node: Node, key: str) -> Any:
        self.lines.setdefault(key, _line(node))
        if isinstance(node, ScalarNode):
            if node.style is not None:
                return node.value
            self.texts[key] = node.value
            return plain(node.value)
        if isinstance(node, SequenceNode):
            return [self.value(child, f"{key}[{index}]") for index, child in enumerate(node.value)]
        return self.mapping(node, key)

    def mapping(self, node: Node, parent: str) -> dict[str, Any]:
        assert isinstance(node, MappingNode)
        found: dict[str, Any] = {}
        first: dict[str, int] = {}
        for name_node, child in node.value:
            if not isinstance(name_node, ScalarNode):
                raise self.error(
                    name_node, "a key must be text", "write KEY: VALUE; {x} in braces needs quotes", parent
                )
            name = name_node.value
            if name_node.style is None and (not isinstance(plain(name), str) or name == "<<"):
                what = (
                    "merge keys (<<) aren't allowed"
                    if name == "<<"
                    else f"key {name or 'null'} isn't text but {kind_of(plain(name))}"
                )
                raise self.error(
                    name_node, what, "write the keys out" if name == "<<" else "put it in quotes", parent
                )
            if name == "":
                raise self.error(name_node, "a key is empty", "name it", parent)
            if name in found:
                raise self.error(
                    name_node,
                    f"the key stands twice (first on line {first[name]})",
                    "keep one",
                    join(parent, name),
                )
            first[name] = _line(name_node)
            self.lines[join(parent, name)] = first[name]
            found[name] = self.value(child, join(parent, name))
        return found


def _line(place: Any) -> int:
    return int(place.start_mark.line) + 1


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, SequenceNode):
        yield from node.value
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _syntax(error: yaml.MarkedYAMLError, file: str | None) -> UsageError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "can't be parsed"
    mend = "mend the YAML"
    if "'\\t'" in problem:
        problem, mend = "a tab stands where YAML wants spaces", "indent with spaces"
    elif "mapping values are not allowed" in problem:
        mend = "put text that holds ': ' in quotes, or check the indentation"
    elif "expected a single document" in (error.context or ""):
        problem, mend = "a second document begins (---)", "keep one document in a file"
    elif "could not find expected ':'" in problem:
        mend = "write KEY: VALUE, with a space behind the colon"
    elif "cannot start any token" in problem:
        mend = "put text that begins with a special character in quotes"
    elif "<block end>" in problem:
        mend = "check the indentation and the brackets above"
    elif "expected alphabetic or numeric character" in problem:
        mend = "put text that begins with * or & in quotes"
    elif "expected ',' or" in problem or "end of stream" in problem or "stream end" in problem:
        mend = "close the bracket or quote"
    return UsageError("CONFIG-YAML", problem, mend=mend, file=file, line=mark.line + 1 if mark else None)


def kind_of(value: Any) -> str:
    """A value's type in a user's words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "a mapping")


class _Dumper(yaml.SafeDumper):
    """Writes what ``load`` reads back as it was; what YAML 1.1 readers would reinterpret is quoted too."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0]:
            return _TAGS.get(type(plain(value)), "tag:yaml.org,2002:null")
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def text(self, value: str) -> ScalarNode:
        old = super().resolve(ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]
        ambiguous = old != _TAGS[str] or not isinstance(plain(value), str)
        style = '"' if _ESCAPED.search(value) else "'" if ambiguous else "|" if "\n" in value else None
        return self.represent_scalar(_TAGS[str], value, style=style)

    def items(self, value: list[Any]) -> SequenceNode:
        flat = not any(isinstance(item, (list, dict)) for item in value)
        return self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_TAGS: dict[type, str] = {
    str: "tag:yaml.org,2002:str",
    bool: "tag:yaml.org,2002:bool",
    int: "tag:yaml.org,2002:int",
    float: "tag:yaml.org,2002:float",
}
_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(list, _Dumper.items)


def dump(value: Any) -> str:
    """Mappings, lists, text, numbers, booleans and None as YAML that ``load`` reads back unchanged."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
    )
