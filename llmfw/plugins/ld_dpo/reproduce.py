"""What LD-DPO claims, and the two experiments that decide it; the README describes them.

Made pairs: a tiny model from scratch over the task in ``synthetic``, where quality and length have nothing to
do with each other. Real pairs: SmolLM2-135M-Instruct with LoRA over CHAMP pairs whose longer side is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from llmfw import Arm, Claim

from . import made_pairs, real_pairs

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
MODES = ("both", "policy_only")
Seeds = Mapping[Literal["smoke", "small", "full"], tuple[int, ...]]
MADE: Seeds = {"smoke": (1,), "small": (11, 12, 13, 14, 15), "full": tuple(range(11, 21))}
REAL: Seeds = {"smoke": (1,), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)}


def ld(alpha: float, mode: str = "both") -> str:
    """The name of the arm with these settings."""
    return f"{'ld_dpo' if mode == 'both' else mode}-{alpha:g}"


METHOD = ld(0.5)
"""What the paper finds best for Llama3-8B-Instruct, and the plugin's default."""
RELATIVES = ("r_dpo", "sampo", "simpo")
OTHERS = (*(ld(a, m) for m in MODES for a in ALPHAS if ld(a, m) != METHOD), *RELATIVES)


def writes_fewer(
    number: int, statement: str, *, paper: str, arms: tuple[str, str], controls: tuple[str, ...]
) -> Claim:
    """That a model trained on made pairs writes fewer tokens in the second arm than in the first."""
    return Claim(
        id=f"ld_dpo.{number}",
        statement=statement,
        paper=paper,
        metric="sampled_tokens",
        direction="lower",
        # 3% of an answer of 14 tokens, which is below the paper's smallest reduction
        effect=0.5,
        unit="tokens",
        arms=arms,
        controls=controls,
        seeds=MADE,
    )


CLAIMS = (
    Claim(
        id="ld_dpo.1",
        statement="Trained on real pairs whose longer side is chosen, SmolLM2-135M-Instruct answers held-out "
        "prompts with fewer tokens after LD-DPO (alpha 0.5) than after DPO.",
        paper="Table 2, AlpacaEval 2: 7.8 to 38.7% fewer tokens than DPO, Llama3-8B-Instruct 393 -> 308",
        metric="answer_tokens",
        direction="lower",
        # 2 to 3% of such an answer: less than a sentence of ten tokens nobody would notice
        effect=5.0,
        unit="tokens",
        arms=("real-dpo", f"real-{METHOD}"),
        controls=("real-untrained",),
        seeds=REAL,
        items=True,
    ),
    Claim(
        id="ld_dpo.2",
        statement="On held-out pairs whose better answer is the shorter one, LD-DPO (alpha 0.5) prefers the "
        "better answer more often than DPO.",
        paper="none: the paper measures no accuracy by length",
        metric="validation/rewards/accuracies/rejected_longer",
        # one pair in fifty: below that a user who picks by these rewards sees no difference
        effect=0.02,
        unit="share",
        arms=("dpo", METHOD),
        controls=OTHERS,
        seeds=MADE,
    ),
    Claim(
        id="ld_dpo.3",
        statement="On held-out pairs the margin of LD-DPO (alpha 0.5) goes less with the difference of "
        "lengths than DPO's: their correlation is nearer 0.",
        paper="none: section 3 argues from likelihoods that DPO's margin grows with length",
        metric="correlation_size",
        direction="lower",
        # about what 300 pairs can tell from 0 by eye; smaller ones change no choice of method
        effect=0.05,
        unit="|r|",
        arms=("dpo", METHOD),
        controls=OTHERS,
        seeds=MADE,
    ),
    writes_fewer(
        4,
        "Trained on made pairs of which 85% have the longer side chosen, a model writes fewer "
        "tokens after LD-DPO (alpha 0.5) than after DPO.",
        paper="Table 2, as for ld_dpo.1",
        arms=("dpo", METHOD),
        controls=("sft", *OTHERS),
    ),
    writes_fewer(
        5,
        "The smaller alpha, the shorter: after LD-DPO with alpha 0 a model writes fewer tokens "
        "than with alpha 0.5.",
        paper="Figure 4: length falls mostly from alpha 1 to 0.5 and is flat below",
        arms=(METHOD, ld(0)),
        controls=("dpo", ld(0.25), ld(0.75)),
    ),
    writes_fewer(
        6,
        "Where the reference's sum isn't weighted (policy_only), a model writes fewer tokens than "
        "where it is.",
        paper="none: the paper doesn't say whether the reference is weighted",
        arms=(METHOD, ld(0.5, "policy_only")),
        controls=("dpo", ld(0), ld(0, "policy_only")),
    ),
    Claim(
        id="ld_dpo.7",
        statement="Over held-out pairs of which as many have the longer side chosen as rejected, LD-DPO "
        "(alpha 0.5) prefers the better answer no less often than DPO.",
        paper="Table 2: length-controlled win rates rise by 1.9 to 5.3 points over DPO's; no accuracy",
        metric="validation/rewards/accuracies",
        kind="not_worse",
        effect=0.02,
        unit="share",
        arms=("dpo", METHOD),
        controls=OTHERS,
        seeds=MADE,
    ),
    Claim(
        id="ld_dpo.8",
        statement="LD-DPO wins more length-controlled comparisons on AlpacaEval 2 and Arena-Hard, and scores "
        "higher on MT-Bench, than DPO.",
        paper="Table 2: Llama3-8B-Instruct 40.21 -> 44.00% length-controlled; tables 3 and 4",
        metric="length-controlled win rate",
        not_tested="there is no judge here (the paper's is GPT-4 Turbo), and models that two cores can train "
        "answer too poorly for one",
    ),
)


def arms(claim: Claim, seed: int, size: str) -> Mapping[str, Arm]:
    """The arms of a claim's experiment."""
    scale = real_pairs.SCALES[size] if claim.id == "ld_dpo.1" else made_pairs.SCALES[size]
    if isinstance(scale, real_pairs.Scale):
        return {
            "real-untrained": real_pairs.untrained(scale),
            **{
                f"real-{name}": real_pairs.arm(f"{about}, on real pairs", plugin, settings, scale)
                for name, (about, plugin, settings) in _losses(MODES[:1], (0.5,)).items()
            },
        }
    return {
        "sft": made_pairs.sft(seed, scale),
        **{
            name: made_pairs.arm(about, plugin, settings, seed, scale)
            for name, (about, plugin, settings) in {**_losses(MODES, ALPHAS), **_relatives()}.items()
        },
    }


def _losses(
    modes: tuple[str, ...], alphas: tuple[float, ...]
) -> Mapping[str, tuple[str, str, dict[str, Any]]]:
    """Arm -> (about, plugin, its settings)."""
    return {
        "dpo": ("DPO", "dpo", {}),
        **{
            ld(alpha, mode): (
                f"LD-DPO, alpha {alpha:g}" + ("" if mode == "both" else ", reference not weighted"),
                "ld_dpo",
                {"ld_dpo.alpha": alpha, "ld_dpo.ref_mode": mode},
            )
            for mode in modes
            for alpha in alphas
        },
    }


def _relatives() -> Mapping[str, tuple[str, str, dict[str, Any]]]:
    """The paper's baselines, with its settings (section 4); beta is DPO's but for SimPO."""
    return {
        "r_dpo": ("R-DPO, 0.05 a token", "dpo", {"dpo.loss": "r_dpo", "dpo.bonus": 0.05}),
        "sampo": ("SamPO", "dpo", {"dpo.loss": "sampo"}),
        "simpo": ("SimPO, beta 2, gamma 1", "dpo", {"dpo.loss": "simpo", "dpo.beta": 2.0, "dpo.gamma": 1.0}),
    }
