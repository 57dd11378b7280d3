"""The core's settings: one dataclass a root key. ``help`` says what a key means, with its unit; ``choices``
close a set of words.

``llmfw config --keys``, the command line's help and the docs are generated from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    Samples = int  # what a run sees: "auto" has become a number before its plan is made
else:
    Samples = int | Literal["auto"]


def _key(help: str, default: Any, *, choices: tuple[str, ...] = ()) -> Any:
    metadata = {"help": help, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Settings:
    """Base of all settings: writable while they are merged, read-only once a run has them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_sealed"):
            raise AttributeError(
                f"{type(self).__name__}.{name} is read-only: a run's config doesn't change after its plan"
            )
        object.__setattr__(self, name, value)


def seal(settings: Any) -> None:
    """Make settings read-only, those nested in them too."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        for part in value.values() if isinstance(value, dict) else [value]:
            if isinstance(part, Settings):
                seal(part)
    settings.__dict__["_sealed"] = True


@dataclass
class ModelConfig(Settings):
    """Which weights: a preset, hub id, folder, GGUF file, run's folder, checkpoint, or MLflow run id."""

    name: str = _key(
        "preset, hub id, folder, GGUF file, run folder, checkpoint or MLflow run id", "smollm2-135m"
    )
    revision: str | None = _key("commit or tag of a hub repository; logged", None)
    dtype: str = _key("dtype of the weights", "float32", choices=("float32", "bfloat16", "float16"))
    attention: str = _key("transformers' attention implementation", "sdpa")
    quantization: str = _key(
        "how the frozen base is held, through bitsandbytes: nf4 (4-bit normal floats), int8",
        "none",
        choices=("none", "nf4", "int8"),
    )
    config: dict[str, Any] = _key("transformers config (with model_type) of a model made from scratch", {})
    package: dict[str, Any] = _key(
        "presets only: distribution, version, sha256 and file that carry the weights", {}
    )
    trust_remote_code: bool = _key("run code from the model's repository; leave it off", False)


@dataclass
class AuxiliaryConfig(ModelConfig):
    """An auxiliary model: weights as of ``model``, a recipe, a script, or an endpoint."""

    name: str = _key("as of model; of an endpoint the model's name there", "")
    fit: dict[str, Any] = _key(
        "a recipe: the keys of a run that is trained once and kept by its plan's hash", {}
    )
    script: str | None = _key(
        "FILE.py:FUNCTION that answers a list of prompts with a list of texts; runs as your own code", None
    )
    endpoint: str | None = _key(
        "base URL of an OpenAI-compatible server, e.g. http://localhost:8000/v1; name: the model there",
        None,
    )
    api_key_env: str | None = _key("environment variable that holds the endpoint's key", None)
    timeout: float = _key("seconds that an endpoint may take for one answer", 120.0)
    retries: int = _key("further tries where an endpoint fails in passing", 3)


@dataclass
class TokenizerConfig(Settings):
    """How text becomes tokens."""

    name: str | None = _key(
        "tokenizer's folder or hub id; null: the model's own; 'byte': one token a byte", None
    )
    template: str | None = _key(
        "chat template: a name (chatml, llama3, ...) or a file with Jinja; null: the tokenizer's own", None
    )
    train: str | None = _key(
        "train a tokenizer of this kind on the data's raw text, once, before the plan; null: none is trained",
        None,
        choices=("bpe", "unigram", "wordpiece"),
    )
    vocab_size: int = _key("with train: tokens in all, special tokens included", 8192)


@dataclass
class DataConfig(Settings):
    """What is trained on."""

    name: str = _key(
        "preset, file (jsonl, json, parquet, csv, tsv, txt), folder, or hub id of a data set",
        "champ-preferences",
    )
    mix: dict[str, float] = _key("sources and their weights, instead of name: {a.jsonl: 2, b.jsonl: 1}", {})
    mix_until: str = _key(
        "with mix: an epoch ends when the first source, or every source, has been seen in full",
        "first",
        choices=("first", "all"),
    )
    subset: str | None = _key("subset (configuration) of a hub data set", None)
    split: str = _key(
        "split of a hub data set, or of a folder that `datasets` saved, that is trained on", "train"
    )
    revision: str | None = _key("commit or tag of a hub data set; logged", None)
    columns: dict[str, str] = _key("other names of keys: {prompt: question, completion: answer}", {})
    deduplicate: bool = _key("drop rows whose content was seen before, and count them", False)
    streaming: bool = _key("read rows while training instead of all before; needs trainer.max_steps", False)
    shuffle_buffer: int = _key("with streaming: rows that are shuffled together", 1000)
    kind: str | None = _key(
        "form of the rows; null: read off their keys",
        None,
        choices=("preference", "completion", "messages", "text", "problems"),
    )
    options: dict[str, Any] = _key(
        "options of a preset (lengths: balanced) or of files (text: lines, rows: KEY, delimiter: ;)", {}
    )
    package: dict[str, Any] = _key(
        "presets only: distribution, version, sha256 and file that carry the data", {}
    )
    validation: str | None = _key("held-out rows: a file, a split's name, or a share such as 0.1", "0.1")
    split_key: str | None = _key(
        "rows with one value of this key stay on one side of the split; null: the prompt", None
    )
    max_length: int = _key(
        "longest example, tokens; scaled by the tokenizer's bytes per token for byte tokenizers", 512
    )
    too_long: str = _key(
        "what happens to a longer example; split: a text becomes several examples",
        "drop",
        choices=("error", "drop", "cut_start", "cut_end", "split"),
    )
    on_bad_row: str = _key("what happens to a row that can't be used", "error", choices=("error", "skip"))
    max_bad_rows: int = _key("with on_bad_row=skip: give up beyond this many rows", 100)
    limit: int | None = _key("use the first rows only", None)
    packing: bool = _key("join short examples into rows of max_length tokens", False)
    group_by_length: bool = _key("batches of examples of like length", True)
    workers: int = _key("processes that prepare batches", 0)


@dataclass
class AdapterConfig(Settings):
    """Train a few added parameters instead of all."""

    kind: str = _key("adapter", "none", choices=("none", "lora"))
    r: int = _key("rank", 16)
    alpha: float = _key(
        "scale; the adapter's output is multiplied by alpha / r (alpha / sqrt(r) with use_rslora)", 32.0
    )
    dropout: float = _key("dropout of the adapter's input, 0 to 1", 0.0)
    target_modules: list[str] = _key(
        "names of the linear layers that get an adapter, or a preset: all-linear, attention, mlp",
        ["all-linear"],
    )
    use_dora: bool = _key(
        "DoRA: train direction and magnitude of each weight apart (arXiv 2402.09353)", False
    )
    use_rslora: bool = _key("rsLoRA: scale by alpha / sqrt(r) (arXiv 2312.03732)", False)
    modules_to_save: list[str] = _key(
        "modules that are trained in full beside the adapter, e.g. embed_tokens, lm_head", []
    )


@dataclass
class OptimizerConfig(Settings):
    """AdamW and its learning-rate schedule, computed in optimizer steps."""

    name: str = _key(
        "optimizer; the 8-bit ones are bitsandbytes'",
        "adamw",
        choices=("adamw", "adamw8bit", "paged_adamw8bit"),
    )
    lr: float = _key("peak learning rate", 2e-5)
    betas: list[float] = _key("decay rates of the two moments", [0.9, 0.999])
    eps: float = _key("term added to the denominator", 1e-8)
    weight_decay: float = _key("decoupled weight decay; never on norms, biases and embeddings", 0.0)
    schedule: str = _key(
        "learning rate after warm-up", "cosine", choices=("constant", "linear", "cosine", "wsd")
    )
    warmup: float = _key("warm-up: optimizer steps, or a share of all steps where below 1", 0.1)
    decay: float = _key("wsd only: share of the steps in the final decay", 0.2)
    min_lr: float = _key("final learning rate as a share of the peak", 0.0)
    clip: float = _key("largest gradient norm; 0: no clipping", 1.0)


@dataclass
class EarlyStoppingConfig(Settings):
    """Stop when a validation metric no longer improves."""

    metric: str | None = _key("name of the metric, e.g. validation/loss; null: never stop early", None)
    mode: str = _key("direction that is better", "min", choices=("min", "max"))
    patience: int = _key("validations without improvement before the stop", 3)
    min_delta: float = _key("smallest change that counts", 0.0)


@dataclass
class TrainerConfig(Settings):
    """How long and on what."""

    max_steps: int | None = _key("optimizer steps; null: epochs decides", None)
    epochs: float | None = _key("passes over the data; null: max_steps decides", None)
    micro_batch: Samples = _key(
        "samples (pairs) in one forward pass of one process; auto: the most whose predicted peak of memory "
        "fits",
        2,
    )
    accumulate: int = _key("forward passes per optimizer step", 1)
    batch: int | None = _key(
        "samples per optimizer step over all processes, which then decides accumulate; null: micro_batch x "
        "accumulate x processes",
        None,
    )
    layout: str = _key(
        "how a micro-batch lies: padded, a row a sample; packed, all in one row, no padding; shared_prompt, "
        "packed with a pair's prompt standing once; auto: the best that model, plugins and data allow",
        "auto",
        choices=("auto", "padded", "packed", "shared_prompt"),
    )
    devices: int = _key("processes (CPU) or GPUs of each node", 1)
    nodes: int = _key("machines; each is started with the same command (torchrun, SLURM)", 1)
    accelerator: str = _key("hardware", "auto", choices=("auto", "cpu", "gpu"))
    strategy: str = _key(
        "how several devices work together: ddp copies the model, fsdp2 and deepspeed shard it; auto: ddp",
        "auto",
        choices=("auto", "ddp", "fsdp2", "deepspeed"),
    )
    deepspeed: dict[str, Any] = _key(
        "DeepSpeed's own configuration; its batch sizes and optimizer are ours", {}
    )
    precision: str = _key(
        "arithmetic of the forward pass",
        "32-true",
        choices=("32-true", "bf16-true", "bf16-mixed", "16-mixed"),
    )
    deterministic: bool = _key("refuse nondeterministic operations", True)
    fused: str = _key(
        "auto: norms, gated MLPs and rotary positions that are known run with fewer passes over memory, "
        "answers the same to the bit; off: as transformers has them",
        "auto",
        choices=("auto", "off"),
    )
    recompute: str = _key(
        "what is made again in the backward pass instead of kept: elementwise: norms and gated products; "
        "layers: all inside a layer (gradient checkpointing); numbers are the same to the bit",
        "none",
        choices=("none", "elementwise", "layers"),
    )
    compile: str = _key(
        "layers: torch.compile what stands between the layers' matrix products, one graph for all layers",
        "none",
        choices=("none", "layers"),
    )
    threads: int | None = _key("CPU threads; null: the machine's cores divided by the processes", None)
    validate_every: int = _key("optimizer steps between validations; 0: at the end only", 0)
    validation_limit: int | None = _key("use at most this many held-out samples", None)
    log_every: int = _key("optimizer steps between logged values", 1)
    sample_every: int = _key("optimizer steps between printed samples; 0: none", 0)
    sample_prompts: int = _key("held-out prompts answered each time", 2)
    max_time: float | None = _key("minutes after which training stops at a step's end; null: never", None)
    requeue: bool = _key(
        "under SLURM: on SIGTERM and SIGUSR1 (sbatch --signal=USR1@120) save, stop, and put the job back "
        "into the queue; its command needs --resume",
        False,
    )
    spike_factor: float | None = _key(
        "warn of a loss that lies this many mean deviations above the last 32 steps' median; null: never",
        20.0,
    )
    skip_nonfinite: int = _key(
        "steps that may be left out because loss or gradient isn't finite; 0: the first ends the run",
        0,
    )
    progress: bool = _key("show a progress bar", True)
    reference: str = _key(
        "where a loss's reference comes from: the model with its adapter off, a frozen copy, or "
        "log-probs of either cached on disk; auto: adapter_off under an adapter, else copy",
        "auto",
        choices=("auto", "adapter_off", "copy", "cache"),
    )
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)


@dataclass
class CheckpointConfig(Settings):
    """What is written while training."""

    every: int = _key("optimizer steps between checkpoints; 0: at the end only", 50)
    minutes: float | None = _key(
        "save at a step's end once the last checkpoint is so old, whatever every says; null: never", 30.0
    )
    keep: int = _key("newest checkpoints that stay; at least 2", 2)
    background: bool = _key(
        "flush checkpoints to the disk beside the training, from a staged copy; a kill meanwhile costs the "
        "steps since the one before",
        False,
    )
    dir: str | None = _key("folder; null: checkpoints/ in the run's folder", None)


@dataclass
class GenerationConfig(Settings):
    """How answers are sampled."""

    max_new_tokens: int = _key("longest answer, tokens", 256)
    temperature: float = _key("0: greedy", 0.0)
    top_p: float = _key("nucleus: smallest set of tokens with this mass", 1.0)
    top_k: int = _key("candidates per token; 0: all", 0)
    batch_size: int = _key("prompts decoded side by side", 8)
    stop: list[str] = _key("strings that end an answer, beside the end of turn", [])
    budget: int | None = _key("tokens that the rounds of a run may generate together; null: no limit", None)
    backend: str = _key(
        "what samples: transformers is our own loop over its models, vllm a process of vLLM's that reads a "
        "copy of the weights",
        "transformers",
        choices=("transformers", "vllm"),
    )


@dataclass
class EvaluationConfig(Settings):
    """What is measured beside the held-out loss and the plugins' evaluations."""

    metrics: list[str] = _key(
        "of answers to held-out prompts: exact_match, rouge, bleu, chrf; of held-out rows: perplexity",
        [],
    )
    samples: int = _key("held-out prompts that are answered for them", 32)
    when: list[str] = _key("in a run: start, validation, end", ["end"])
    lm_eval: list[str] = _key(
        "tasks (or groups of them) of lm-eval, the language-model evaluation harness", []
    )
    lm_eval_path: str | None = _key(
        "folder with tasks (yaml) of your own; what they call with !function runs as your own code", None
    )
    lm_eval_limit: int | None = _key("use at most this many documents of each task", None)
    lm_eval_shots: int | None = _key("examples before each question; null: as the task says", None)
    lm_eval_chat: bool = _key("put each question into the chat template", False)


@dataclass
class TrackingConfig(Settings):
    """Where the numbers go. The run's own journal is always written."""

    mlflow: bool = _key("send the journal to MLflow", True)
    uri: str | None = _key(
        "MLflow tracking URI; null: $MLFLOW_TRACKING_URI, else sqlite in runs/mlflow.db", None
    )
    experiment: str = _key("MLflow experiment", "llmfw")
    tags: dict[str, str] = _key("tags of the run", {})


@dataclass
class SandboxConfig(Settings):
    """How untrusted code is confined."""

    level: str = _key("isolation that is required", "strict", choices=("paranoid", "strict", "unsafe"))


@dataclass
class RunConfig(Settings):
    """Where the run lives."""

    dir: str | None = _key("folder; null: runs/TIME-NAME", None)
    name: str | None = _key("name; null: the plugins' names", None)


@dataclass
class Root(Settings):
    """All settings of the core. Each plugin that is switched on adds its own under its name."""

    plugins: list[str] = _key("plugins in the order in which they speak", [])
    seed: int = _key("seed of data order, new parameters and sampling", 42)
    model: ModelConfig = field(default_factory=ModelConfig)
    models: dict[str, AuxiliaryConfig] = _key(
        "auxiliary models by name; keys as of model, or a recipe, script or endpoint", {}
    )
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    run: RunConfig = field(default_factory=RunConfig)
