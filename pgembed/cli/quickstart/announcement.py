"""What a quickstart says before its first step: how much code, how long it will take here, and what else there is."""

from collections.abc import Iterator, Sequence

from pgembed.cli.common import printable, processors, seconds
from pgembed.cli.quickstart.ledger import Ledger
from pgembed.cli.quickstart.plan import PLANS, Plan, estimate_seconds, fit, measure_gflops
from pgembed.corpus.walk import Candidate
from pgembed.evaluation.dataset import Dataset
from pgembed.training.precision import resolve_precision

_ABOUT = {
    "quick": "less code, fewer steps of training, fewer queries and so wide intervals",
    "default": "neither option: a sample of the code",
    "thorough": "all the code, a longer training, more queries",
}


class Announcement:
    """The plan as it fits this machine, and the lines that tell of it."""

    def __init__(
        self, root: str, files: Sequence[Candidate], plan: Plan, ledger: Ledger, outside: Sequence[Dataset]
    ) -> None:
        self.root, self.files, self.finished = root, files, list(ledger.finished)
        self.total_bytes = sum(item.size_bytes for item in files)
        self.gflops = measure_gflops()
        self.bf16 = resolve_precision("auto") == "bf16"
        self.more_texts = sum(len(dataset.documents) + len(dataset.queries) for dataset in outside)
        if ledger.plan is not None:
            plan = ledger.plan  # an earlier run's size stays, whatever the machine does now
        elif plan.name == "default":
            plan = fit(plan, self.total_bytes, self.gflops, bf16=self.bf16)
        self.plan = plan

    def lines(self) -> Iterator[str]:
        """Tell what will be done, and what the other plans would cost."""
        sample_bytes = min(self.total_bytes, self.plan.corpus_bytes or self.total_bytes)
        part = "all of it" if sample_bytes == self.total_bytes else "a fixed sample of it"
        yield (
            f"{printable(self.root)}: {len(self.files):,} files of code; {part}, {sample_bytes / 1e6:.1f} MB, is used. "
            f"On this machine ({processors()} processors, {self.gflops:,.0f} GFLOP/s) that takes about "
            f"{seconds(self._estimate(self.plan))}."
        )
        for name, other in PLANS.items():
            if other.name != self.plan.name:
                option = "" if name == "default" else f"--{name}: "
                yield f"  {option}{_ABOUT[name]}; about {seconds(self._estimate(other))}"
        if self.finished:
            yield f"An earlier run has finished: {', '.join(self.finished)}. What is done is skipped."

    def _estimate(self, plan: Plan) -> float:
        return estimate_seconds(plan, self.total_bytes, self.gflops, bf16=self.bf16, more_texts=self.more_texts)
