"""`pgembed eval --tune-weights`: what each weighting of an encoder's two towers is worth."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from pgembed.cli.common import console, print_json, printable, show_progress

if TYPE_CHECKING:
    from pgembed.encoders.onnx_encoder import OnnxEncoder
    from pgembed.evaluation.dataset import Dataset
    from pgembed.evaluation.tower_weights import TunedWeights


def tune(encoder: "OnnxEncoder", datasets: "Sequence[Dataset]", *, as_json: bool) -> None:
    """Tune on each data set and print what was found."""
    from pgembed.evaluation.tower_weights import tune_weights

    found = [tune_weights(encoder, dataset, progress=show_progress()) for dataset in datasets]
    if as_json:
        print_json({"weights": [tuned.to_json() for tuned in found]})
        return
    for tuned in found:
        _show(tuned)


def _show(tuned: "TunedWeights") -> None:
    from pgembed.evaluation.metrics import METRICS

    first, second = tuned.towers
    shown = Table(f"share of {printable(first)}", "weights", *METRICS, box=None)
    for trial in tuned.trials:
        marks = [
            mark
            for mark, other in (("best", tuned.best), ("equal", tuned.equal), ("alone", tuned.alone))
            if other.share == trial.share
        ]
        share = f"{trial.share:.2f}" + (f" ({', '.join(marks)})" if marks else "")
        weights = f"{trial.weights[0]:.3f}, {trial.weights[1]:.3f}"
        shown.add_row(share, weights, *(f"{trial.metrics[metric]:.3f}" for metric in METRICS))
    console.print(printable(f"{tuned.dataset}: {tuned.queries:,} queries, {tuned.documents:,} documents"), markup=False)
    console.print(shown)
    for name, test in (("equal weights", tuned.over_equal), (f"{tuned.alone_name} alone", tuned.over_alone)):
        interval = f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
        console.print(printable(f"Best against {name}: ndcg@10 {interval}, p {test.p:.4f}"), markup=False)
    console.print(printable(tuned.verdict), markup=False)
    one, two = tuned.best.weights
    if one and two:
        counts = json.dumps({"tower_weights": {first: round(one, 3), second: round(two, 3)}})
        console.print(printable(f"To use them, export by an encoder file with {counts}; see pgembed export --help."))
