"""`pgembed eval --tune-fusion`: how the rankings by vectors and by words are best fused."""

from typing import TYPE_CHECKING

from rich.table import Table

from pgembed.cli.common import console, print_json, printable, show_progress

if TYPE_CHECKING:
    import psycopg

    from pgembed.encoders.onnx_encoder import OnnxEncoder
    from pgembed.evaluation.dataset import Dataset
    from pgembed.evaluation.fusion import TunedFusion


def tune_both(
    conn: "psycopg.Connection",
    encoder: "OnnxEncoder",
    datasets: "list[Dataset]",
    *,
    apply: bool,
    as_json: bool,
) -> None:
    """Show how both rankings are best fused on each data set; store what is best on the first."""
    from dataclasses import asdict

    from pgembed.evaluation.evaluate import tune
    from pgembed.evaluation.fusion import apply_fusion

    progress = show_progress()
    tuned = [tune(conn, encoder, dataset, progress=progress) for dataset in datasets]
    if apply:
        apply_fusion(conn, tuned[0].best)
    if as_json:
        print_json({"fusions": [asdict(one) for one in tuned], "applied": apply})
        return
    for one in tuned:
        _show_fusion(one)
    if apply:
        best = tuned[0].best
        console.print(
            f"Stored in pgembed.search_settings: rrf_k {best.rrf_k:g}, lexical_weight {best.lexical_weight:g}."
        )
    else:
        console.print("Nothing was stored; --apply does that.")


def _show_fusion(tuned: "TunedFusion") -> None:
    weights = sorted({trial.lexical_weight for trial in tuned.trials})
    values = {(trial.rrf_k, trial.lexical_weight): trial.value for trial in tuned.trials}
    shown = Table("rrf_k \\ lexical_weight", *(f"{weight:g}" for weight in weights), box=None)
    for constant in sorted({trial.rrf_k for trial in tuned.trials}):
        shown.add_row(f"{constant:g}", *(f"{values[constant, weight]:.3f}" for weight in weights))
    console.print(
        printable(f"{tuned.dataset}\n{tuned.queries:,} queries, {tuned.documents:,} documents; nDCG@10"), markup=False
    )
    console.print(f"vectors alone {tuned.vector:.3f}, words alone {tuned.lexical:.3f}, both:")
    console.print(shown)
    test = tuned.over_vector
    console.print(
        f"Best: rrf_k {tuned.best.rrf_k:g}, lexical_weight {tuned.best.lexical_weight:g}: {tuned.best.value:.3f}, "
        f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}] over vectors alone.",
        markup=False,
    )
