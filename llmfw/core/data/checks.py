"""Is the mask right? What is trained must be the answer and its end of turn, after exactly one BOS.

The check is independent of how masks are made: trained tokens are decoded and compared with the row's own
words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmfw.core.data.examples import Example, TokenSequence
from llmfw.core.data.formats import Form, answer_of, is_trained, reaches_end
from llmfw.core.data.text import TextTokenizer
from llmfw.core.records import Row


@dataclass(frozen=True)
class Finding:
    """Something wrong (``error``) or odd (``warning``) with one sequence of a sample.

    ``code``: NOTHING-TRAINED, DOUBLE-BOS, NO-BOS, END-UNTRAINED, CONTROL-TRAINED,
    TRAINED-TEXT.
    """

    code: str
    severity: Literal["error", "warning"]
    sample: str
    side: int
    what: str

    def __str__(self) -> str:
        return f"{self.severity}[{self.code}] sample {self.sample}, sequence {self.side + 1}: {self.what}"


@dataclass(frozen=True)
class Expected:
    """What a row says should be trained: ``text``, and whether it is whole answers (with their ends).

    ``parts``: where functions are called, contents and the functions' names in order; between them stands
    what the template writes for calls.
    """

    text: str
    whole: bool
    parts: tuple[str, ...] = ()


def audit(
    examples: Iterable[Example],
    tokenizer: Any,
    rows: Iterable[Row] = (),
    form: Form | None = None,
    max_length: int | None = None,
) -> list[Finding]:
    """Findings over these examples.

    With their ``rows`` and ``form`` the trained text is compared with the row's, and an untrained end of turn
    is an error; without them it's a warning, as trained spans may well end inside an answer. Examples that
    reach ``max_length`` may have been cut: of them a part may be trained.
    """
    text = TextTokenizer(tokenizer)
    wanted = {row["id"]: expected(form, row) for row in rows} if form is not None else {}
    findings: list[Finding] = []
    for example in examples:
        members = example.members or (example.id,) * len(example.sequences)
        for side, (name, sequence) in enumerate(zip(members, example.sequences, strict=True)):
            row_says = wanted.get(name)
            if row_says is not None:
                said: Expected | None = row_says[0 if example.packed else side]
            else:
                said = None
            cut = max_length is not None and example.length >= max_length
            for code, severity, what in _check(text, sequence, said, cut):
                findings.append(Finding(code, severity, name, side, what))
    return findings


def expected(form: Form, row: Row) -> tuple[Expected, ...]:
    """What each sequence of a row should train, in the row's own words."""
    if form == "preference":
        return tuple(_response(row[side], None) for side in ("chosen", "rejected"))
    if form == "completion":
        return (_response(row["completion"], row.get("spans")),)
    if form == "problems":
        return (Expected(answer_of(row), True),)
    if form == "messages":
        return (_response(row["messages"], None),)
    spans = row.get("spans")
    return (Expected(_cut_out(row["text"], spans), reaches_end(spans, row["text"])),)


def _response(response: str | Sequence[Mapping[str, Any]], spans: Sequence[Sequence[int]] | None) -> Expected:
    if isinstance(response, str):
        return Expected(_cut_out(response, spans), reaches_end(spans, response))
    trained = [message for message in response if is_trained(message)]
    whole = reaches_end(trained[-1].get("spans"), trained[-1]["content"])
    said = [_cut_out(message["content"], message.get("spans")) for message in trained]
    parts: list[str] = []
    if any(message.get("tool_calls") for message in trained):
        for content, message in zip(said, trained, strict=True):
            parts += [content, *(call["function"]["name"] for call in message.get("tool_calls", ()))]
    return Expected("".join(said), whole, tuple(parts))


def _cut_out(text: str, spans: Sequence[Sequence[int]] | None) -> str:
    return text if spans is None else "".join(text[start:stop] for start, stop in spans)


def _check(
    text: TextTokenizer, sequence: TokenSequence, said: Expected | None, cut: bool
) -> Iterable[tuple[str, Literal["error", "warning"], str]]:
    bos = text.tokenizer.bos_token_id
    if sequence.encoder:
        pass  # a decoder's row begins with a token of its own, whatever the tokenizer puts before texts
    elif bos is not None and sequence.ids[:2] == (bos, bos):
        yield "DOUBLE-BOS", "error", f"it begins with {text.tokenizer.bos_token} twice"
    elif text.bos and sequence.ids[:1] != text.bos:
        yield "NO-BOS", "warning", f"the tokenizer puts {text.tokenizer.bos_token} first, but it isn't there"
    trained = sequence.trained_ids
    if not trained:
        yield "NOTHING-TRAINED", "error", "no token of it is trained"
        return
    if trained[-1] not in text.special_ids and (said is None or said.whole):
        mild = said is None or cut or not text.specials
        last = text.decode(trained[-1:])
        yield (
            "END-UNTRAINED",
            "warning" if mild else "error",
            f"the last trained token is {last!r}, no end of turn",
        )
    calls = said is not None and bool(said.parts)  # a template may open calls with a control token
    inside = None if calls else _control_inside(text, sequence)
    if inside is not None:
        yield "CONTROL-TRAINED", "error", f"{text.decode([inside])} is trained before an answer's end"
    if said is not None and said.parts:
        got, at = _bare(text, text.decode(trained)), 0
        for part in said.parts:
            found = got.find(_bare(text, part), at)
            if found < 0 and not cut:
                yield "TRAINED-TEXT", "error", f"trained is {_short(got)}, without {_short(part)}"
                return
            at = max(found, 0)
    elif said is not None:
        got, want = _bare(text, text.decode(trained)), _bare(text, said.text)
        # a document's first token has nothing before it and can't be trained
        all_trained = all(sequence.trained[1:])
        if got != want and not (all_trained and want.endswith(got)) and not (cut and got in want):
            yield "TRAINED-TEXT", "error", f"trained is {_short(got)}, the row says {_short(want)}"


def _control_inside(text: TextTokenizer, sequence: TokenSequence) -> int | None:
    """A control token that is trained and isn't the last of its run of trained tokens.

    An encoder-decoder's answer may begin with one (BART's ``<s>``, a language).
    """
    marks = text.marks(target=True)[0] if sequence.encoder else ()
    control = text.ends.keys() if sequence.encoder and not text.chat else text.special_ids
    for index, (token, trained) in enumerate(zip(sequence.ids, sequence.trained, strict=True)):
        if marks and sequence.ids[1 : index + 1] == marks[:index]:
            continue
        goes_on = index + 1 < len(sequence) and sequence.trained[index + 1]
        if trained and goes_on and token in control:
            return token
    return None


def _bare(text: TextTokenizer, said: str) -> str:
    """Without control tokens and blanks: templates strip and add blanks, nothing else."""
    for token in text.specials:
        said = said.replace(token, "")
    return "".join(said.split())


def _short(said: str) -> str:
    return repr(said if len(said) <= 60 else f"{said[:28]}...{said[-28:]}")
