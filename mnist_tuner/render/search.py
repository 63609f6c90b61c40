"""A search's report on the console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import ConsoleRenderable, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mnist_tuner.render.run import add_data, headline, line, stopped_line
from mnist_tuner.render.text import count, deviation, four, interval, percent, plural, score
from mnist_tuner.reports.comparison import net_name
from mnist_tuner.reports.search import OBJECTIVE, SearchReport, SearchTiming, units_of
from mnist_tuner.search.display import score_note, trial_table
from mnist_tuner.search.trial import ranked
from mnist_tuner.search.versions import WorkerInfo

MOST_ROWS = 40
"""With more trials than this the table shows the best of them only."""


def setting(report: SearchReport) -> Table:
    """What is searched with what."""
    config, data = report.config, report.data
    table = Table.grid(padding=(0, 2))
    processes = plural(report.workers, "worker") if report.workers else "no workers"
    where = f" of {config['scheduler']}" if config["scheduler"] else ""
    table.add_row("Device", line(f"{report.device}, {processes}{where}, one thread each"))
    if config["scheduler"] and (about := about_workers(report.worker_info)):
        table.add_row("Workers", line(about))
    if data is not None:
        add_data(table, data)
    low, high, step = config["widths"]
    table.add_row("Space", f"two hidden layers of {low} to {high} by {step}; trial 0 is the baseline, 100-100")
    trials = f"{report.total} trials" if report.total else "trials as Hyperband needs"
    effort = f"{plural(config['replicates'], 'replicate')} each, {plural(config['epochs'], 'epoch')}"
    table.add_row("Search", f"{config['strategy']}: {trials}, {effort}, seed {report.seed}")
    return table


def about_workers(workers: Sequence[WorkerInfo]) -> str:
    """What there is to say of a cluster's workers, besides their number: that their processors differ, that some were refused."""
    kinds = Counter(worker.processor for worker in workers if worker.refused is None)
    refused = sum(worker.refused is not None for worker in workers)
    parts = []
    if len(kinds) > 1:
        parts.append(f"{'; '.join(f'{number} x {kind}' for kind, number in kinds.items())}: last bits may differ between them")
    if refused:
        parts.append(f"{refused} refused (run.json says why)")
    return "; ".join(parts)


def heading(report: SearchReport) -> list[RenderableType]:
    """What stands above the result: versions, data, space."""
    return [headline(report.versions), setting(report)]


def result(report: SearchReport) -> list[RenderableType]:
    """What a search came to, as far as it came."""
    parts: list[RenderableType] = ["", search_result(report)] if report.trials else []
    if report.status != "finished":
        parts.append(line(f"The search is {report.status}" + (f": {report.error}" if report.error else ""), style="yellow"))
    if report.timing is not None:
        parts += ["", timing_line(report.timing)]
    return parts


def search_result(report: SearchReport) -> ConsoleRenderable:
    """The ranked table, and the comparison on the test images."""
    trials = ranked(report.trials, "max")
    completed = sum(trial.completed for trial in trials)
    shown = trials[:MOST_ROWS]
    title = f"Trials by {OBJECTIVE}" + (f", the best {MOST_ROWS} of {len(trials)}" if len(trials) > len(shown) else "")
    parts: list[ConsoleRenderable] = [trial_table(shown, OBJECTIVE, title)]
    note = f"{OBJECTIVE}: mean +/- standard deviation (replicates) {score_note(shown)}"
    parts.append(Text(f"{note}; a trial's weights are those of its first replicate.", style="dim"))
    if completed < len(trials):
        parts.append(Text(f"{len(trials) - completed} of {len(trials)} trials failed.", style="red"))
    if report.stopped:
        parts.append(stopped_line(report.stopped))
    parts += [Text(), *_choice(report)]
    if report.baseline is not None:
        parts += [Text(), *_comparison(report)]
    return Group(*parts)


def _choice(report: SearchReport) -> Iterator[Text]:
    """What the choice is worth."""
    selection, best, recommended = report.selection, report.best, report.recommended
    if selection is None or best is None or recommended is None:
        return
    yield Text("The choice, by validation images", style="bold")
    name = net_name(units_of(best))
    if selection.luck is None or selection.standard_error is None:
        yield line(f"{name} has the best score; with one replicate a trial, nobody can tell how much of that is luck.")
        return
    yield Text(
        f"{name} has the best score. Of {selection.candidates} nets that are all equally good, the luckiest would stand out by "
        f"about {four(selection.luck)}, by its seeds alone."
    )
    error = f"one standard error ({four(selection.standard_error)})"
    if recommended is best:
        yield Text(f"No narrower net that was trained as long is within {error} of it.")
    else:
        size = count(recommended.parameters)
        yield Text(f"The narrowest within {error} of it: {net_name(units_of(recommended))}, {size} parameters.")


def _comparison(report: SearchReport) -> Iterator[ConsoleRenderable]:
    assert report.baseline is not None
    nets = [("baseline", report.baseline)]
    if report.winner is not None:
        nets = [("winner", report.winner), *nets]
    data = report.data
    images = data.test_images if data is not None else "the test images"
    yield Text(f"Trained anew on all training images, with fresh seeds, and measured on {images}", style="bold")
    table = Table(box=None, pad_edge=False)
    for name in ("", "units", "parameters", "test accuracy", "sd", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    for name, net in nets:
        accuracy = net.accuracy
        table.add_row(name, net.name, count(net.parameters), percent(accuracy.value), percent(net.sd), interval(accuracy))
    yield table
    for name, net in nets:
        yield line(f"{name}, each seed: {'  '.join(map(percent, net.accuracies))}")
    counted = "Mean and standard deviation over seeds; the interval counts seeds and images both."
    yield Text(counted if len(report.baseline.seeds) > 1 else "One seed each: the interval counts images only.", style="dim")
    if report.looked_before:
        earlier = ", ".join(report.looked_before)
        yield line(f"The test images have been looked at before, when the search was stopped: for {earlier}.", style="yellow")
    yield Text()
    yield verdict(report)


def verdict(report: SearchReport) -> Text:
    """The answer, and what to do next."""
    text = Text(report.verdict or "", style="bold green" if report.comparison and report.comparison.distinguishable else "bold")
    for sentence in (report.comparison.outlook if report.comparison else "", report.advice):
        if sentence:
            text.append(f"\n{sentence}", style="not bold default")
    return text


def result_line(report: SearchReport) -> Text:
    """The result in a line, and the verdict in one."""
    best = report.best
    if best is None:
        return Text("no trial was completed")
    text = Text.assemble((f"Best widths {net_name(units_of(best))}", "bold green"), f"  {OBJECTIVE} {score(best)}")
    for name, net in (("test", report.net), ("baseline", report.baseline if report.winner else None)):
        if net is not None:
            text.append(f"  {name} {percent(net.accuracy.value)}{deviation(net.sd)} ({len(net.accuracies)})")
    if report.net is not None and report.data is not None and report.data.held_out:
        text.append(f"\ntest: {report.data.test_images}")
    if report.verdict:
        text.append(f"\n{report.verdict}")
    return text


def timing_line(timing: SearchTiming) -> Text:
    """Where the time went."""
    split = f"start {timing.start_s:.1f}, search {timing.search_s:.1f}, comparison {timing.final_s:.1f}"
    return Text.assemble(("Time ", "bold"), f"{timing.total_s:.1f} s: {split}; {timing.trials_per_minute:.1f} trials a minute")
