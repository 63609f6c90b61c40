"""The notebook, executed headless as a class would; and a kernel that is interrupted."""

from __future__ import annotations

import json
import queue
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient

from tests.support.commands import DEADLINE, ROOT, environment
from tests.support.project import MODULE, write_small_project
from tests.support.searches import journal, wait_until, write_pictures

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "scripts" / "MNIST.ipynb"
SMALL = """
from pathlib import Path
EPOCHS = 1
TRIALS = 2
REPLICATES = 1
SEEDS = 1
OUTPUT = Path("runs")
"""
MOST_MESSAGES = 20
"""Of a cell, besides the four drawings a second: each is sent to the browser."""


def kernel_environment() -> dict[str, str]:
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": str(ROOT)}  # the debugger has something to say, too
    return environment(**quiet)


class Client(NotebookClient):  # type: ignore[misc]
    """Counts what is sent for each cell."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sent: dict[int, list[tuple[str, str | None]]] = {}

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        kind = msg["msg_type"]
        if kind in ("stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"):
            identity = msg["content"].get("transient", {}).get("display_id")
            self.sent.setdefault(cell_index, []).append((kind, identity))
        return super().process_message(msg, cell, cell_index)


def is_parameters(cell: Any) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The notebook after all its cells have run, with small settings, in a folder of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if is_parameters(cell)]
    missing = set(re.findall(r"^(\w+) =", parameters.source, re.MULTILINE)) ^ set(re.findall(r"^(\w+) =", SMALL, re.MULTILINE))
    assert not missing  # every parameter is set here
    parameters.source = SMALL
    client = Client(notebook, timeout=DEADLINE, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=kernel_environment())
    return client


def outputs(client: Client, source: str) -> list[Any]:
    """The outputs of the cell in which this stands."""
    (cell,) = [cell for cell in client.nb.cells if cell.cell_type == "code" and source in cell.source]
    return list(cell.outputs)


def text_of(found: list[Any]) -> str:
    """What is to be read in outputs, without markup."""
    texts = [
        each.get("text") or each.get("data", {}).get("text/html") or each.get("data", {}).get("text/plain", "") for each in found
    ]
    return " ".join(re.sub(r"<[^>]*>", "", "\n".join(texts)).split())


def test_no_cell_ends_with_an_error_or_a_warning(executed: Client) -> None:
    for cell in executed.nb.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", output.get("traceback")
            assert output.get("name") != "stderr", output.get("text")
            assert "Warning" not in text_of([output])
            assert "Traceback" not in text_of([output])
    assert all(cell.execution_count for cell in executed.nb.cells if cell.cell_type == "code")


def test_the_report_the_verdict_and_the_digit_are_shown(executed: Client) -> None:
    trained = text_of(outputs(executed, "baseline = train("))
    assert re.search(r"Test accuracy 9\d\.\d\d%", trained)
    assert "Confusion matrix" in trained
    (manifest,) = (executed_folder(executed) / "runs").glob("*-train-*/run.json")
    assert f"Test accuracy {json.loads(manifest.read_text())['test']['accuracy']:.2%}" in trained
    (searched,) = (executed_folder(executed) / "runs").glob("*-search-*/run.json")
    found = json.loads(searched.read_text())
    assert (found["status"], len(found["trials"])) == ("finished", 2)
    assert found["final"]["verdict"] in text_of(outputs(executed, "found = search("))
    assert found["final"]["verdict"] in text_of(outputs(executed, "print(found.verdict)"))
    reading = text_of(outputs(executed, "reading = predict("))
    assert re.search(r"my_digit\.png\b.*\b(\d) +\d+\.\d\d%.*runner-up \d +\d+\.\d\d%", reading)
    assert (executed_folder(executed) / "my_digit.png").exists()


def executed_folder(client: Client) -> Path:
    return Path(client.resources["metadata"]["path"])


def test_rich_output_is_shown_as_html(executed: Client) -> None:
    for source in ("baseline = train(", "found = search(", "reading = predict(", "runs(OUTPUT)"):
        assert any("text/html" in output.get("data", {}) for output in outputs(executed, source)), source
    for source in ("page(baseline)", "page(found)"):
        pages = [output.data["text/html"] for output in outputs(executed, source) if "text/html" in output.get("data", {})]
        assert any("<iframe" in page for page in pages)


def test_progress_is_drawn_in_its_place_and_does_not_flood(executed: Client) -> None:
    for cell_index, sent in executed.sent.items():
        cell = executed.nb.cells[cell_index]
        began, ended = (
            datetime.fromisoformat(cell.metadata.execution[name]) for name in ("iopub.execute_input", "shell.execute_reply")
        )
        assert len(sent) < MOST_MESSAGES + 4 * (ended - began).total_seconds(), cell.source
    (search,) = [i for i, cell in enumerate(executed.nb.cells) if cell.cell_type == "code" and "found = search(" in cell.source]
    kinds = Counter(kind for kind, _ in executed.sent[search])
    assert kinds["update_display_data"] > 1  # something has been drawn again
    places = {identity for kind, identity in executed.sent[search] if kind == "display_data" and identity}
    assert {identity for kind, identity in executed.sent[search] if kind == "update_display_data"} <= places
    assert len(places) <= 4  # loading, table, comparison
    left = [o for o in executed.nb.cells[search].outputs if o.get("data", {}).get("text/html") == ""]
    assert len(left) >= 1  # what was drawn again and again leaves nothing behind
    assert "loading TensorFlow" not in text_of(list(executed.nb.cells[search].outputs))


def test_the_notebook_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 8
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum(map(is_parameters, code)) == 1


class Cells:
    """A kernel in which cells are run."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager, self.client = manager, client

    def begin(self, source: str) -> str:
        return str(self.client.execute(source))

    def end(self, identity: str) -> tuple[dict[str, Any], str]:
        """Waits for a cell's end: its reply, and what it has printed."""
        deadline, said = time.monotonic() + DEADLINE, ""
        while True:
            message = self.client.get_iopub_msg(timeout=deadline - time.monotonic())
            if message["parent_header"].get("msg_id") != identity:
                continue
            content = message["content"]
            said += content.get("text", "") + content.get("data", {}).get("text/plain", "")
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        while (reply := self.client.get_shell_msg(timeout=DEADLINE))["parent_header"].get("msg_id") != identity:
            pass
        return reply["content"], said

    def run(self, source: str) -> str:
        """Runs a cell that is to succeed: what it prints."""
        reply, said = self.end(self.begin(source))
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", []))
        return said


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Cells]:
    """A kernel in an empty folder."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path), env=kernel_environment())
    try:
        yield Cells(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


SETTING = """
from pathlib import Path
from mnist_tuner.config import SearchConfig, TrainConfig
from mnist_tuner.runner import search, train
small = {"widths": (8, 48, 8), "replicates": 2, "final_seeds": 1, "data": Path("pictures"), "output": Path("runs")}
config = SearchConfig(trials=6, epochs=150, workers=2, **small)
"""


def test_the_first_cell_installs_from_the_clone_that_it_finds_or_says_what_it_needs(kernel: Cells, tmp_path: Path) -> None:
    _, first, *_ = nbformat.read(NOTEBOOK, as_version=4).cells
    kernel.run(first.source)  # it is there: nothing is installed
    kernel.run("import sys; sys.modules['mnist_tuner'] = None")  # as if it were not
    reply, _ = kernel.end(kernel.begin(first.source))
    assert (reply["ename"], reply["evalue"][:50]) == ("ModuleNotFoundError", "mnist_tuner is not installed: set SOURCE, above, o")
    write_small_project(tmp_path / "mnist_tuner")
    kernel.run("%env PIP_TARGET=installed\n%env PIP_NO_INDEX=1")
    kernel.run(first.source)
    assert (tmp_path / "installed" / "mnist_tuner.py").read_text() == MODULE


def test_an_interrupted_search_leaves_a_kernel_in_which_all_goes_on(kernel: Cells, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", training=320)
    kernel.run(SETTING)
    searching = kernel.begin("found = search(config)")
    runs = tmp_path / "runs"
    wait_until(lambda: any(len(journal(run)) > 1 for run in runs.glob("*-search-*")))
    kernel.manager.interrupt_kernel()
    reply, said = kernel.end(searching)
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    assert "Interrupted" in said
    (folder,) = runs.glob("*-search-*")
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    done = len(journal(folder)) - 1
    assert 1 <= done < 6
    # The next cell trains as ever.
    trained = kernel.run('print(train(TrainConfig(epochs=1, data=config.data, output=Path("trained"))).status)')
    assert "finished" in trained
    # And the search goes on from its folder, in the same kernel.
    kept = journal(folder)
    resumed = kernel.run(
        f"found = search(config, resume=Path({str(folder)!r}))\nprint(found.status, len(found.trials), found.verdict)"
    )
    assert "finished 6 " in resumed
    assert journal(folder)[: len(kept)] == kept
    document = json.loads((folder / "run.json").read_text())
    assert (document["status"], len(document["trials"])) == ("finished", 6)
    with pytest.raises(queue.Empty):  # nothing of the workers comes after the end
        while True:
            message = kernel.client.get_iopub_msg(timeout=0.2)
            assert message["msg_type"] not in ("stream", "error"), message["content"]
