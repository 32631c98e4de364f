"""LR sensitivity of the variants beside each other."""

from matplotlib.figure import Figure

from redline.report.figures.style import EDGE, OTHERS, SIZE, TEXT, Frame, legend, panels, plain, quiet
from redline.report.search import Search
from redline.report.sensitivity import common_lrs, sensitivities


def lr_sensitivity_bars(search: Search) -> Figure:
    """Nats lost, on average over the rungs, for not knowing the best LR; smaller is better."""
    found = sensitivities(search)
    figure, ((axes,),) = panels(1, 1, 5.6, 0.42 * len(found) + 0.1, Frame(left=2.1, top=0.1, bottom=0.85))
    quiet(axes)
    places = range(len(found))
    shared = len(common_lrs(search))
    for offset, values, colour, label in (
        (0.18, [its.own for its in found], OTHERS, "on every rung that the variant ran"),
        (-0.18, [its.common for its in found], EDGE, f"on the {shared} rungs that all variants ran"),
    ):
        shown = [
            (place - offset, value) for place, value in zip(places, values, strict=True) if value is not None
        ]
        if shown:
            axes.barh([y for y, _ in shown], [x for _, x in shown], height=0.32, color=colour, label=label)
        for y, value in shown:
            axes.text(value, y, f" {value:.2f}", va="center", fontsize=SIZE - 1, color=TEXT)
    axes.set_yticks(list(places), [plain(its.variant, 30) for its in found])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("LR sensitivity (nats; smaller is better)", fontsize=SIZE, color=TEXT)
    legend(figure, axes.get_legend_handles_labels()[0], columns=2)
    return figure
