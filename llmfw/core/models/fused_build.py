"""A built model made ready to be trained: what stands between its matrix products fused, compiled, or made
again in the backward pass, as the settings say.
"""

from __future__ import annotations

from llmfw.core.models.build import BuiltModel
from llmfw.core.models.fused import Fused, fuse, use_kernels
from llmfw.core.models.recompute import recompute
from llmfw.core.say import say
from llmfw.core.schema import TrainerConfig


def ready_to_train(built: BuiltModel, trainer: TrainerConfig) -> BuiltModel:
    """The same model after ``trainer.fused``, ``trainer.compile`` and ``trainer.recompute``, in place. What
    a surgery made or changed stays as it is. Names of parameters and answers stay too: to the bit,
    compiled regions aside.

    Raises:
        UsageError: RECOMPUTE, COMPILE, CHECKPOINTING: nothing in this model that a setting could act on.
        ResourceError: COMPILE, where there is no compiler.
    """
    own = [part for one in built.reports for part in (*one.made, *one.changed)]
    fused = fuse(built.module, own) if trainer.fused == "auto" else Fused()
    if fused.counts:
        say(f"fused: {fused}")
    if trainer.compile == "layers":
        from llmfw.core.models.regions import compiled, refuse_nothing

        refuse_nothing(fused, built.module)
        use_kernels(fused, compiled())
        say("compile: regions are compiled in the first step, each once; its time is said")
    recompute(built.module, trainer.recompute, fused)
    return built
