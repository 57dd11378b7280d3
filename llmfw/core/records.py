"""What plugins answer: frozen, keyword-only records whose factories the core calls when their time has come.

Nothing here imports torch, so that records can be listed, printed and hashed before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import click
    import torch
    from torchmetrics import Metric

    from llmfw.core.batch import Batch, BatchKind, LossOutput

Row = dict[str, Any]
"""One record of a data file or of a sampler, before it's tokenised; its keys are those of
``llmfw.core.data.formats``.
"""

Stage = Literal["rows", "tokens", "units", "order"]
When = Literal["start", "validation", "end"]
Refusal = Literal[
    "packing",
    "shared_prompt",
    "right_padding",
    "static_cache",
    "quantised",
    "compile",
    "custom_cache",
    "chunked_prefill",
]
"""What can't be right together with a record; ``custom_cache``: any plugin's key-value cache,
``chunked_prefill``: a prompt that is read in several forward passes.
"""


class Policy(Protocol):
    """A model as losses, samplers and evaluations see it. Local models, scripted policies and endpoints all
    look like this; an endpoint raises ``NotImplementedError`` for what it can't do (``module`` and so on).
    """

    @property
    def module(self) -> Any:
        """The transformers model (or PEFT model) itself."""

    @property
    def companions(self) -> Mapping[str, Any]:
        """Modules that surgeries put beside the model, by name."""

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer: samplers and evaluations get it from here."""

    def logps(self, batch: Batch) -> torch.Tensor:
        """[N] float32 log-probs of the trained tokens, with gradient where the model is trained."""

    def hidden_states(self, batch: Batch, layer: int) -> torch.Tensor:
        """[B, T, D] states entering layer ``layer`` (-1: after the final norm)."""

    def generate(self, prompts: Sequence[Any], **sampling: Any) -> list[Completion]:
        """One completion per prompt (string or message list); ``sampling`` overrides the run's ``generation``
        settings.
        """

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """[len(texts), D] float32, one vector a text."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A generated answer. ``finish`` is ``"stop"`` (end of turn) or ``"length"``; ``ids`` hold the generated
    tokens only, ``unseen`` is the number of those whose ids nobody told (an endpoint counts its tokens).
    """

    text: str
    ids: tuple[int, ...]
    prompt_tokens: int
    finish: Literal["stop", "length"]
    logps: tuple[float, ...] | None = None
    unseen: int = 0

    @property
    def tokens(self) -> int:
        """Generated tokens, known by their ids or not."""
        return len(self.ids) + self.unseen


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb of the command line that a plugin owns; ``factory`` builds the click command when called."""

    name: str
    help: str
    factory: Callable[[], click.Command]


@dataclass(frozen=True, kw_only=True)
class Service:
    """An object that others ask for by protocol and name (``run.service("CodeExecutor")``), built on first
    use, then shared.
    """

    protocol: str
    name: str
    factory: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class ExecutionLimits:
    """What one program may use. ``seconds`` of wall time, ``memory`` MiB of all its processes together,
    ``output`` bytes of stdout and stderr each, ``processes`` alive at once, threads among them.
    """

    seconds: float = 10.0
    memory: int = 256
    output: int = 65536
    processes: int = 16


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What became of a program. ``ok``: it ended with exit code 0; what was written up to a limit is kept.

    ``status`` comes from exit code and limits, never from words in the output. ``exit_code`` is None where
    the program was stopped; ``memory`` is its peak in MiB, None where it isn't known.
    """

    status: Literal["ok", "compile_error", "runtime_error", "time_limit", "memory_limit", "output_limit"]
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    memory: float | None = None


@runtime_checkable
class CodeExecutor(Protocol):
    """The service protocol of the same name: runs programs that nobody trusts.

    A program reads ``stdin`` and reaches no network, no file of the machine but the language's own, no
    environment but its own; what it wrote and the processes that it started are gone afterwards. An executor
    that can't keep that on this machine raises ``llmfw.LlmfwError`` with exit code 8 instead of running.
    """

    def run(
        self, code: str, *, language: str = "python", stdin: str = "", limits: ExecutionLimits | None = None
    ) -> Execution:
        """Run one program to its end or to a limit."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a verifier says of a response.

    ``status``: ``right``; ``wrong``; ``unparsed``: no answer could be found in the response; ``failed``: the
    judge itself failed, so that the sample is to be dropped: it's neither right nor wrong. ``score`` lies in
    [0, 1], partial credit where the judge has it. ``answer`` is what was taken for the final answer.
    """

    status: Literal["right", "wrong", "unparsed", "failed"]
    score: float = 0.0
    answer: str | None = None

    @property
    def right(self) -> bool:
        """Whether the response is right beyond doubt."""
        return self.status == "right"


@runtime_checkable
class Verifier(Protocol):
    """The service protocol of the same name: judges responses to ``problems`` rows.

    Equal rows and responses get equal verdicts, whenever they're asked. It may have a method ``canaries(row)
    -> list of (response, is right)``: responses whose verdict is known, judged along with every batch by the
    core (without it: the row's answer, and an empty response).
    """

    def verify(self, rows: Sequence[Row], responses: Sequence[str]) -> list[Verdict]:
        """One verdict a response; response i answers row i."""


@runtime_checkable
class Reward(Protocol):
    """The service protocol of the same name: what responses to ``problems`` rows are worth to a trainer."""

    def rewards(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """One reward a response, None where the sample is to be dropped; response i answers row i."""


@dataclass(frozen=True, kw_only=True)
class DatasetTransform:
    """A step of the data path.

    stage ``rows``: ``apply(list of Row) -> list of Row``; ``tokens`` and ``units`` (after packing):
    ``apply(list of Example) -> list of Example``; ``order``: ``apply(list of Example, epoch) -> indices``,
    each exactly once, which replaces shuffling (at most one in a run). Order of application is the order in
    which the user lists plugins. Instead of a list ``apply`` may return ``Transformed``, to tell what it did.
    It may ask for services and auxiliary models.
    """

    name: str
    stage: Stage
    apply: Callable[..., Any]
    splits: tuple[str, ...] = ("train",)


@dataclass(frozen=True, kw_only=True)
class Transformed:
    """What a transform made, and what it has to tell: cuts, weights, manifests. Both are kept with the
    prepared data.
    """

    items: Sequence[Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a sampler gives to be trained on: ``start`` says from which weights (``base``, ``last``: the last
    round's, or a name that an earlier round was kept as), ``keep_as`` names the result for later rounds.

    Only weights are taken over: the optimizer and its schedule begin anew in every round. ``epochs`` are
    passes over these records, at most ``trainer.max_steps`` steps of them; None: as the trainer's settings
    say. A record's
    ``problem`` is the id of the row that it answers: from it the core tells how the records lie over problems
    and levels. ``notes`` are numbers and ``tables`` rows of equal keys, both kept with the round.
    """

    records: Sequence[Row]
    start: str = "base"
    keep_as: str | None = None
    epochs: float | None = None
    notes: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RolloutSampler:
    """Makes training data from the present policy, round by round.

    ``next(index, rows, policy, services, ledger) -> Round | None``; None ends the run. ``rows`` are the
    datamodule's, ``policy`` is the result of the last round (of the base model before the first),
    ``services(PROTOCOL, name=None)`` finds a service. Answers are had by ``ledger.generate(policy, prompts,
    purpose=...)``, which counts and remembers them: ``next`` is called anew after a kill, and has to ask for
    the same in the same order. ``batch_kind`` is the form of the records, and that of the loss: prompts with
    completions, conversations and documents are text.
    """

    name: str
    next: Callable[..., Round | None]
    batch_kind: BatchKind = "text"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a surgery did: names of changed or added modules and parameters, and modules that live beside the
    model.
    """

    changed: tuple[str, ...] = ()
    companions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """A change of the architecture.

    ``apply(target, generator) -> Report``; target is the model's config in phase ``before_load``, the model
    afterwards. New parameters are drawn from ``generator`` alone. ``trainable``, ``no_weight_decay`` and
    ``rank_local`` are shell patterns (fnmatch) over parameter names of the model, or ``companions.NAME.*``.
    ``neutral`` says that the present settings make the surgery change nothing on purpose; otherwise an empty
    report is an error. Another forward is given by swapping ``__class__`` after load (``before_load`` sets
    what the config can say; it can't replace the class). ``batch_keys`` reach the base model's forward in
    training and the first forward pass of generation.
    """

    name: str
    phase: Literal["before_load", "after_load", "after_adapters"]
    apply: Callable[[Any, Any], Report]
    trainable: tuple[str, ...] = ()
    no_weight_decay: tuple[str, ...] = ()
    rank_local: tuple[str, ...] = ()
    batch_keys: tuple[str, ...] = ()
    refuses: tuple[Refusal, ...] = ()
    required_on_load: bool = True
    neutral: bool = False


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A training loss: ``call(policy, batch, reference) -> LossOutput``; reference is a Policy where one was
    asked for, else None.

    ``unit`` is what ``LossOutput.total`` sums over. ``calibrate(policy, batches)`` runs once, before step 1,
    and never on resume.
    """

    name: str
    call: Callable[..., LossOutput]
    batch_kind: BatchKind
    unit: Literal["tokens", "sequences", "pairs"]
    needs_reference: bool = False
    calibrate: Callable[..., None] | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured value with the bounds of its 95% interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """``metrics`` go to the journal under their own names (an Estimate also as NAME/low, NAME/high, NAME/n);
    ``tables`` map a name to a list of rows of equal keys."""

    metrics: Mapping[str, float | Estimate] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A measurement of the policy: ``run(policy, services) -> EvaluationResult``, at each moment that
    ``when`` lists.

    ``services(PROTOCOL, name=None)`` finds a service.
    """

    name: str
    run: Callable[[Any, Any], EvaluationResult]
    when: tuple[When, ...] = ("end",)


@dataclass(frozen=True, kw_only=True)
class NamedMetric:
    """A torchmetrics metric over a stage: ``update(metric, output, batch)`` feeds it a LossOutput and its
    Batch.
    """

    name: str
    factory: Callable[[], Metric]
    update: Callable[[Any, Any, Any], None]


@dataclass(frozen=True, kw_only=True)
class CacheFactory:
    """A key-value cache for generation.

    ``build(model_config) -> transformers.Cache``; ``attention`` is (name, function), registered and set for
    the length of a call and undone after it; ``prefill_chunk`` is the number of prompt tokens per prefill
    call (None: all at once). ``batched`` says that several prompts of equal length may share one cache (each
    row as if it were alone, and rows can be dropped by ``batch_select_indices``); otherwise each prompt gets
    its own. ``after_prefill(cache)`` is called once a prompt has been read in full, before the first new
    token: the moment to evict. An attention function finds its cache in what the cache's ``update`` noted
    just before: the two calls are adjacent in one thread. ``budget(prompt, new)`` is the most entries that
    all layers together keep of one row, after a prompt of ``prompt`` tokens and ``new`` more; the conformance
    kit holds the cache to it. An entry is one position in ``layer.keys``; a cache that keeps them elsewhere
    has a method ``kept_tokens()`` that returns their number layer by layer. ``get_seq_length()`` is the
    number of tokens read, whatever was evicted.
    """

    name: str
    build: Callable[[Any], Any]
    attention: tuple[str, Callable[..., Any]] | None = None
    prefill_chunk: int | None = None
    after_prefill: Callable[[Any], None] | None = None
    batched: bool = False
    budget: Callable[[int, int], int] | None = None
    refuses: tuple[Refusal, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A way to generate: ``generate(policy, input_ids, sampling, cache) -> token ids``.

    input_ids is one prompt, [1, T] int64; ``sampling`` a ``llmfw.core.generation.Sampling``; ``cache`` builds
    a fresh transformers Cache. Returned are the new token ids, end-of-turn token included. One that rewrites
    the cache (a token tree) refuses ``custom_cache``.
    """

    name: str
    generate: Callable[..., Sequence[int]]
    refuses: tuple[Refusal, ...] = ()
