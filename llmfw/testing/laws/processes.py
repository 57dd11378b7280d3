"""Laws of plugins in several processes."""

from __future__ import annotations

from llmfw.core.data import DataModule
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.observed import seen, series_difference
from llmfw.testing.ranks import in_two_processes
from llmfw.testing.subject import Subject

_CLOSE = 1e-5


@law("two-ranks", "loss", "datamodule", "transform", "surgery")
def two_ranks(subject: Subject) -> None:
    """Two processes make one plan, and end with equal weights but for rank-local ones; their loss is that of
    one process with the same global batch, within 1e-5 of its size."""
    subject.trained_well()
    if "sampler" in subject.kinds:
        raise NotApplicable("rounds run in one process")
    source = subject.plan().one("llmfw_datamodule")
    if not isinstance(source, DataModule):
        raise NotApplicable("a bare LightningDataModule deals out its batches itself")
    # tiny steps: otherwise a rounding of the first step's gradient shows in the second step's loss
    slow = {"optimizer.lr": "1e-7", "trainer.max_steps": "2"}
    twice = str(2 * int(subject.settings["trainer.accumulate"]))
    folder = subject.folder / "two"
    first, second = in_two_processes(subject.words(slow), [subject.name], folder)
    if first.plan != second.plan:
        raise broken(
            "two processes make two plans", mend="let hooks look at nothing but their arguments and config"
        )
    apart = [name for name, digest in first.weights.items() if second.weights.get(name) != digest]
    if apart:
        raise broken(
            f"{apart[0]} ends otherwise in the second process",
            mend="change weights through gradients alone, or name it in Surgery.rank_local",
        )
    one = seen(subject.fit(slow | {"trainer.accumulate": twice}).dir)
    two = seen(folder / "run")
    for name in ("loss", "grad_norm"):
        found = series_difference(name, two.series[name], one.series[name], tolerance=_CLOSE)
        if found:
            raise broken(
                f"in two processes (here) and in one (there) {found}",
                mend="return sums over the declared unit, and let nothing depend on the process",
            )
