"""``llmfw chat``: a conversation in the terminal, or through a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw.core.errors import LlmfwError, UsageError
from llmfw.verbs.opening import check_out, open_model, tell, whole_file
from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.records import Completion

HELP = "/reset forgets the conversation · /system TEXT sets its system message · /save FILE.jsonl · /quit"


@click.command("chat")
@run_options
@click.option("--system", default="", metavar="TEXT", help="System message of the conversation.")
def command(system: str, **layers: Any) -> None:
    """Talk to a model: llmfw chat model=runs/... generation.temperature=0.7

    Ctrl-C stops an answer (what was written of it stays in the conversation); /quit or the end of input ends
    the program. Further commands: /help, /reset, /system TEXT, /save FILE.jsonl.
    """
    opened = open_model("chat", layers)
    interactive = sys.stdin.isatty()
    if interactive:
        click.echo(HELP, err=True)
    converse(Conversation(opened.policy, system=system), lines(interactive))


def lines(interactive: bool) -> Iterator[str]:
    """What is typed, line by line, with history and editing in a terminal; Ctrl-C drops a half-typed line."""
    if not interactive:
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401  # importing it gives input() its history

    while True:
        try:
            yield input("you> ")
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo("\n(/quit or Ctrl-D ends)", err=True)


@dataclass
class Conversation:
    """The messages so far, and the model that continues them.

    A conversation that outgrows the model's context loses its oldest turns; the system message stays.
    """

    policy: Any
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    """user and assistant in turn."""
    asked: int = 0

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the model reads."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.turns

    def reset(self) -> None:
        """Forget all turns."""
        self.turns.clear()

    def make_room(self) -> int:
        """Drop the oldest turns until the answer has room; gives the number of messages dropped.

        Room is ``max_new_tokens``, but at most half of the context.

        Raises:
            UsageError: the last message alone is too long.
        """
        context = context_of(self.policy)
        if context is None:
            return 0
        from llmfw.core.generation import ids_read

        sides = getattr(self.policy, "sides", None)
        # an encoder-decoder writes its answer elsewhere than it reads
        room = min(self.policy.sampling.max_new_tokens, context // 2) if sides is None else 0
        dropped = 0
        while (length := len(ids_read(self.policy.tokenizer, self.messages, sides))) > context - room:
            if len(self.turns) <= 1:
                raise UsageError(
                    "MESSAGE-TOO-LONG",
                    f"the message has {length} tokens of {context}, and {room} are kept for its answer",
                    mend="write a shorter one, or lower generation.max_new_tokens",
                )
            # a question goes with its answer: a conversation never begins with the assistant
            gone = 2 if len(self.turns) > 2 else 1
            del self.turns[:gone]
            dropped += gone
        return dropped

    def answer(
        self, text: str, show: Callable[[str], None], note: Callable[[str], None]
    ) -> Completion | None:
        """Ask and show the answer while it's written; None where Ctrl-C stopped it.

        Raises:
            LlmfwError: the question can't be asked; it isn't part of the conversation then.
        """
        from llmfw.core.generation import TextStream

        before = list(self.turns)
        self.turns.append({"role": "user", "content": text})
        stream = TextStream(self.policy.tokenizer, self.policy.sampling)
        written: list[str] = []

        def write(piece: str) -> None:
            written.append(piece)
            show(piece)

        try:
            dropped = self.make_room()
            if dropped:
                note(f"the model's context is full: the oldest {dropped} messages are forgotten")
            self.asked += 1
            completion: Completion = self.policy.generate(
                [self.messages], ids=[self.asked], watch=lambda _, token: write(stream.push(token))
            )[0]
            write(stream.close())
        except KeyboardInterrupt:
            note("stopped")
            completion = None  # type: ignore[assignment]  # what was written stays
        except LlmfwError:
            self.turns[:] = before
            raise
        self.turns.append({"role": "assistant", "content": "".join(written)})
        if completion is not None and completion.finish == "length":
            note("cut at the limit (generation.max_new_tokens)")
        return completion

    def save(self, file: Path) -> None:
        """Write the conversation as one row of form ``messages``, which ``fit`` can train on.

        Raises:
            UsageError: nothing was said, or the file can't be written.
        """
        if not self.turns:
            raise UsageError("CHAT-SAVE", "nothing was said yet", mend="ask something first")
        check_out(file, (".jsonl",))
        with whole_file(file) as out:
            out.write(f"{json.dumps({'messages': self.messages}, ensure_ascii=False)}\n".encode())


def context_of(policy: Any) -> int | None:
    """Positions that a policy's model was made for, None where there's no limit."""
    from llmfw.core.generation import context_length

    return context_length(policy.module)


def converse(conversation: Conversation, typed: Iterator[str]) -> None:
    """Answer every line until ``/quit`` or the end; answers go to standard output, all else to the other."""
    for line in typed:
        text = line.strip()
        try:
            if not text:
                continue
            if text.startswith("/"):
                if not _obey(conversation, text):
                    return
                continue
            conversation.answer(text, show=tell, note=_note)
            click.echo()
        except LlmfwError as error:
            click.echo(str(error), err=True)


def _obey(conversation: Conversation, text: str) -> bool:
    """Carry a command out; False ends the program."""
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word in ("/quit", "/exit"):
        return False
    if word == "/help":
        click.echo(HELP, err=True)
    elif word == "/reset":
        conversation.reset()
        _note("the conversation is forgotten" + ("; the system message stays" if conversation.system else ""))
    elif word == "/system":
        conversation.system = rest
        _note("the system message is set" if rest else "there is no system message now")
    elif word == "/save":
        if not rest:
            raise UsageError("CHAT-SAVE", "the file's name is missing", mend="write /save FILE.jsonl")
        conversation.save(Path(rest).expanduser())
        _note(f"saved to {rest}")
    else:
        raise UsageError("CHAT-COMMAND", f"there is no command {word}", mend=f"known are {HELP}")
    return True


def _note(text: str) -> None:
    click.echo(f"({text})", err=True)
