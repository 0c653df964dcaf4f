"""The pictures of docs/how-it-works.md, drawn with the package's own functions: `python docs/pictures.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from hyperdpo.cli import main as hyperdpo
from hyperdpo.core.mixture import mixture_scores
from hyperdpo.core.preferences import stream, weight_grid
from hyperdpo.core.sampling import sample_weights
from hyperdpo.data.cache import read_table
from hyperdpo.plots import COLOURS
from hyperdpo.ranking.run import RankRun

IMAGES = Path(__file__).parent / "images"


def closed_form() -> Figure:
    """One list of six documents: two targets, their mean, and the scores that follow from it at eleven weightings."""
    targets = torch.tensor([[[0.42, 0.22, 0.16, 0.10, 0.06, 0.04], [0.04, 0.10, 0.12, 0.12, 0.22, 0.40]]])
    base = torch.tensor([[1.2, 0.9, 1.4, 0.3, 0.6, 0.2]])
    mask = torch.ones_like(base, dtype=torch.bool)
    grid = weight_grid(2, 11)
    scores = mixture_scores(targets.log(), mask, base, torch.as_tensor(grid, dtype=torch.float32), [1.0, 1.0])[:, 0]
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    bars, lines = figure.subplots(1, 2)
    places = np.arange(6)
    mixed = 0.5 * targets[0, 0] + 0.5 * targets[0, 1]
    for shift, values, colour, name in (
        (-0.27, targets[0, 0], COLOURS[0], "$p_1$: clicks"),
        (0.0, mixed, COLOURS[2], "$0.5\\,p_1 + 0.5\\,p_2$"),
        (0.27, targets[0, 1], COLOURS[1], "$p_2$: quality"),
    ):
        bars.bar(places + shift, values, 0.25, color=colour, label=name)
    bars.set(xlabel="document", ylabel="probability", xticks=places, title="targets, and their mean at w = (0.5, 0.5)")
    bars.legend(frameon=False, fontsize="small")
    for item in range(6):
        lines.plot(grid[:, 0], scores[:, item], color=COLOURS[item], label=f"document {item}")
        lines.plot([-0.08], base[0, item], marker="<", color=COLOURS[item])
    lines.set(
        xlabel="weight of clicks",
        ylabel="score s",
        title=r"$s = s_{base} + \log(\sum_j w_j p_j) / \beta$; < is the base",
    )
    lines.legend(frameon=False, fontsize="x-small", ncols=2)
    return figure


def front() -> Figure:
    """A trained run on generated data: w moves along the front, c back to the base."""
    with tempfile.TemporaryDirectory() as directory:
        data, out = Path(directory) / "data.txt", Path(directory) / "run"
        assert hyperdpo(["data", "generate", str(data), "--queries", "600"]) == 0
        objectives = "query_url_clicks,url_clicks"
        options = ["--preset", "mslr", "--objectives", objectives, "--out", str(out), "--cpu"]
        assert hyperdpo(["rank", "fit", str(data), *options]) == 0
        run, table = RankRun.load(out), read_table(data)
        _, part = run.part(table, "test")
        examples = run.examples(part)
        scales = (1.0, 1.5, 2.0, 3.0, 6.0)
        fronts = {scale: run.front(examples, weight_grid(2, 21), [scale]) for scale in scales}
        base = run.base_front(examples)
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.subplots()
    low = min(float(np.min(each.main)) for each in fronts.values())
    for scale, each in fronts.items():
        axis.plot(*each.metrics.T, color="#bbbbbb", lw=0.8, zorder=1)
        points = axis.scatter(
            *each.metrics.T, c=each.main, vmin=low, vmax=float(base.main[0]), s=18, cmap="viridis", zorder=2
        )
        axis.annotate(f"c = {scale:g}", each.metrics[16], xytext=(6, 3), textcoords="offset points", fontsize="small")
    axis.plot(*base.metrics[0], "k*", ms=12, label="base")
    for index, name in ((0, "w = (1, 0)"), (-1, "w = (0, 1)")):
        axis.annotate(
            name, fronts[1.0].metrics[index], xytext=(0, -14), textcoords="offset points", fontsize="small", ha="center"
        )
    figure.colorbar(points, label="NDCG@10 of the main label")
    axis.margins(0.1)
    axis.set(
        xlabel="NDCG@10 of query_url_clicks", ylabel="NDCG@10 of url_clicks", title="one training: w along, c back"
    )
    axis.legend(frameon=False)
    return figure


def sampling() -> Figure:
    """Weights that are drawn in training, on the simplex of three objectives."""
    corners = np.array([[0, 0], [1, 0], [0.5, 3**0.5 / 2]])
    figure = Figure(figsize=(8.4, 2.8), layout="constrained")
    settings = {
        "Dirichlet(2)": {"alpha": [2.0] * 3},
        "Dirichlet(0.5), the default": {"alpha": [0.5] * 3},
        "0.5, stratified, 0.2 vertices": {"alpha": [0.5] * 3, "stratified": True, "vertex_share": 0.2},
    }
    for axis, (name, options) in zip(figure.subplots(1, 3), settings.items(), strict=True):
        drawn = sample_weights(count=256, rng=stream(0, 1), **options) @ corners
        axis.fill(*corners.T, facecolor="none", edgecolor="#888888")
        axis.scatter(*drawn.T, s=7, color=COLOURS[0], alpha=0.6)
        axis.set(aspect="equal", title=name)
        axis.axis("off")
    return figure


def language_model() -> Figure:
    """Where w enters a language model."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, 12), ylim=(0, 5))
    axis.axis("off")

    def box(x: float, y: float, width: float, text: str, colour: str, height: float = 0.8) -> None:
        style = "round,pad=0.05,rounding_size=0.12"
        axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor="#444444"))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9, color="black")

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="#444444"))

    box(0.2, 2.1, 1.5, "w, per row", "#F7D9A8")
    box(2.6, 0.3, 2.6, "A(w): k x r,  B(w): r x d", "#CFE3F3")
    box(2.6, 3.7, 2.6, "gates g(w): one per\ncomponent of LoRA", "#CFE3F3")
    box(6.2, 0.3, 2.4, "k virtual tokens\n* (1 + A(w) B(w))", "#D8EFD8")
    box(9.3, 0.3, 2.4, "prompt and answer,\nembedded", "#EEEEEE")
    box(6.2, 2.1, 5.5, "layer:  y = W x + B diag(g(w)) A x", "#EEEEEE")
    box(6.2, 3.7, 2.4, "LoRA A, B:\nr for each objective", "#D8EFD8")
    box(9.3, 3.7, 2.4, "logits", "#EEEEEE")
    arrow((1.7, 2.3), (2.6, 0.8))
    arrow((1.7, 2.7), (2.6, 4.0))
    arrow((5.25, 0.7), (6.15, 0.7))
    arrow((5.25, 4.1), (6.15, 4.1))
    arrow((7.4, 1.15), (7.4, 2.05))
    arrow((10.5, 1.15), (10.5, 2.05))
    arrow((7.4, 3.65), (7.4, 2.95))
    arrow((10.5, 2.95), (10.5, 3.65))
    axis.text(
        6.0, -0.15, "green: trained at all w;  blue: small networks of w;  grey: the base model, frozen", fontsize=8
    )
    return figure


def main() -> None:
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "hyperdpo"
    IMAGES.mkdir(exist_ok=True)
    for draw in (closed_form, front, sampling, language_model):
        path = IMAGES / f"{draw.__name__.replace('_', '-')}.svg"
        draw().savefig(path, metadata={"Date": None})
        print(path)


if __name__ == "__main__":
    main()
