"""Settings ``s3c_math.*``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Settings:
    """What the sampler, the loss and the evaluations read."""

    share_corrected: float = field(
        default=0.57,
        metadata={
            "help": "share of the mix that shows an error and its repair, beside all plain solutions (the "
            "paper's: 532 of 927 thousand); 0: plain solutions alone; 1: none of them",
            "minimum": 0.0,
            "maximum": 1.0,
        },
    )
    source: str = field(
        default="sampled",
        metadata={
            "help": "where wrong steps come from: sampled by cross-fitted models and judged by roll-outs; "
            "perturbed on purpose, without sampling; both: perturbed where sampling found none",
            "choices": ("sampled", "perturbed", "both"),
        },
    )
    folds: int = field(
        default=5,
        metadata={"help": "parts of the problems; each is sampled by a model of the others", "minimum": 2},
    )
    fold_epochs: float | None = field(
        default=None, metadata={"help": "passes of such a model over its parts; null: trainer.epochs"}
    )
    candidates: int = field(default=4, metadata={"help": "next steps sampled at each place", "minimum": 1})
    temperature: float = field(default=1.0, metadata={"help": "of these samples", "minimum": 0.0})
    rollouts: int = field(
        default=4,
        metadata={"help": "continuations of a candidate; it's wrong where none is right", "minimum": 1},
    )
    rollout_temperature: float = field(default=0.7, metadata={"help": "of continuations", "minimum": 0.0})
    audit: int = field(
        default=16,
        metadata={"help": "right steps per fold that are judged by roll-outs too; 0: none", "minimum": 0},
    )
    errors: int = field(default=1, metadata={"help": "most wrong steps in one solution", "minimum": 1})
    level: str = field(
        default="step",
        metadata={
            "help": "what is done again after a reflection: the step, or the whole solution",
            "choices": ("step", "solution"),
        },
    )
    reflections: bool = field(
        default=True, metadata={"help": "write the reflection between wrong step and improvement"}
    )
    annotator: str = field(
        default="template",
        metadata={
            "help": "who words reflection and improvement: templates, or models.TEACHER",
            "choices": ("template", "teacher"),
        },
    )
    teacher: str = field(default="teacher", metadata={"help": "auxiliary model (models.NAME) that annotates"})
    mark: str = field(
        default="Wait", metadata={"help": "word that each reflection begins with, by which it's recognised"}
    )
    mask_wrong: bool = field(
        default=True, metadata={"help": "don't train wrong steps; false: plain training on the full text"}
    )
    reduction: str = field(
        default="tokens",
        metadata={
            "help": "the loss is a mean over tokens of the step, or over its sequences' means",
            "choices": ("tokens", "sequences"),
        },
    )
    tokens: int | None = field(
        default=None,
        metadata={
            "help": "tokens that the last round sees, in place of trainer.epochs: for comparisons",
            "minimum": 1,
        },
    )
    verifier: str = field(
        default="number",
        metadata={"help": "service that judges answers: number, math, string, option, program, ..."},
    )
    problems: int = field(
        default=100, metadata={"help": "held-out problems that are measured; 0: none", "minimum": 0}
    )
    vote: int = field(
        default=0, metadata={"help": "samples per held-out problem, for pass@k and maj@k", "minimum": 0}
    )
