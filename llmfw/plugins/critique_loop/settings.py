"""Settings ``critique_loop.*``."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmfw.core.generation import SelfTrainingConfig

SHARE = {"minimum": 0.0, "maximum": 1.0}


@dataclass
class CritiqueLoopConfig(SelfTrainingConfig):
    """Those of self-training, and what critiques are, who writes them, and what is made of them."""

    critic: str = field(
        default="trained",
        metadata={
            "help": "who criticises wrong answers: trained (in this run), oracle (knows a chain's steps), "
            "noisy (an oracle with error rates), silent (no word), none (nobody: rft), or models.NAME"
        },
    )
    form: str = field(
        default="paper",
        metadata={
            "help": "how critiques are written: as in the paper, or a short line a step",
            "choices": ("paper", "compact"),
        },
    )
    explain: str = field(
        default="step",
        metadata={
            "help": "what the oracle says of a wrong step: the right step, or nothing",
            "choices": ("step", "none"),
        },
    )
    after_error: str = field(
        default="stop",
        metadata={
            "help": "the oracle ends its critique at the first wrong step, or labels later ones too",
            "choices": ("stop", "go_on"),
        },
    )
    noise_miss: float = field(
        default=0.2, metadata={"help": "noisy: share of wrong answers that pass for right", **SHARE}
    )
    noise_alarm: float = field(
        default=0.2, metadata={"help": "noisy: share of right answers that are called wrong", **SHARE}
    )
    noise_place: float = field(
        default=0.2, metadata={"help": "noisy: share of errors found that are put at another step", **SHARE}
    )
    refinements: int | None = field(
        default=None, metadata={"help": "refinements per critique; null: as many as samples", "minimum": 1}
    )
    reserved: int = field(
        default=1, metadata={"help": "most refinements trained of one critique; 0: all", "minimum": 0}
    )
    barrier: bool = field(
        default=True, metadata={"help": "refuse refinements with too few numbers: a shortcut to the answer"}
    )
    slack: int = field(
        default=2, metadata={"help": "how many numbers fewer the barrier lets through", "minimum": 0}
    )
    refine_turn: bool = field(
        default=True, metadata={"help": "also train refinements as answers to their critiques"}
    )
    self_talk: bool = field(
        default=False,
        metadata={"help": "also train error, critique and correction as one answer to the problem"},
    )
    previous: bool = field(
        default=False, metadata={"help": "also train what earlier rounds of the loop have kept"}
    )
    keep_feedback: bool = field(
        default=False, metadata={"help": "also train the annotated refinements in the rounds of the loop"}
    )
    unparsed: str = field(
        default="skip",
        metadata={
            "help": "a critique that can't be read: no refinement is asked, or it's used as it is",
            "choices": ("skip", "use"),
        },
    )
    critique_tokens: int | None = field(
        default=None, metadata={"help": "longest critique; null: generation.max_new_tokens", "minimum": 1}
    )
    annotator: str = field(
        default="oracle",
        metadata={"help": "who writes the critiques that are learnt: oracle (chains), or models.NAME"},
    )
    rg1: int = field(default=2, metadata={"help": "answers sampled per problem for flaws", "minimum": 0})
    rg2: int = field(
        default=1, metadata={"help": "right beginnings continued hotly, per problem", "minimum": 0}
    )
    rg3: int = field(default=1, metadata={"help": "wrong steps put in and continued, each", "minimum": 0})
    right_share: float = field(
        default=0.5,
        metadata={
            "help": "share of right answers among those that the critic learns, as far as there are so many",
            "minimum": 0.0,
            "maximum": 0.9,
        },
    )
    hard_filter: bool = field(
        default=True, metadata={"help": "drop critiques whose verdict isn't the verifier's"}
    )
    filter_samples: int = field(
        default=10, metadata={"help": "refinements by which a critique is judged", "minimum": 1}
    )
    filter_keep: int = field(
        default=3, metadata={"help": "of these, right ones that it needs; 0: no filter", "minimum": 0}
    )
    feedback: bool = field(
        default=True, metadata={"help": "before the loop train solutions and annotated refinements"}
    )
    feedback_epochs: float | None = field(
        default=None, metadata={"help": "passes over these; null: gold_epochs"}
    )
    critic_epochs: float | None = field(
        default=None, metadata={"help": "passes over the critiques; null: gold_epochs"}
    )
    critic_start: str = field(
        default="base",
        metadata={"help": "weights from which the critic is trained", "choices": ("base", "gold")},
    )
    critic_share: float = field(
        default=0.0,
        metadata={
            "help": "share of the problems for the critic, which the loop doesn't ask; 0: all for both",
            **SHARE,
        },
    )
    test_time: int = field(
        default=0,
        metadata={
            "help": "answer, critique and refine held-out problems: 1 greedily, K also in K chains and K "
            "rounds; 0: don't",
            "minimum": 0,
        },
    )
    refine: str = field(
        default="all",
        metadata={
            "help": "which answers are refined then: all, those the critic calls wrong, or those that are "
            "(which needs the gold answers)",
            "choices": ("all", "flagged", "wrong"),
        },
    )
    only_final: bool = field(
        default=False, metadata={"help": "of successive rounds take the last answer, instead of a vote"}
    )
