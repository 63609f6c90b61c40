"""The order of the hooks of callbacks, module and data module, in every kind of run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from mnist_tuner.trainer import Callback, LambdaCallback, ModelCheckpoint, Module, Trainer
from tests.conformance.conftest import Journal, Quiet, Tiny, batches, expanded

PREPARE = "M.configure_callbacks D.prepare_data M.prepare_data D.setup(fit) C.setup(fit) M.setup(fit)"
START = f"{PREPARE} M.configure_model M.configure_optimizers X.on_fit_start"
FINISH = "X.on_fit_end D.teardown(fit) C.teardown(fit) M.teardown(fit)"
SAVE = "C.state_dict D.state_dict C.on_save_checkpoint M.on_save_checkpoint"


def validation(*indices: str) -> str:
    """A validation over these batches."""
    within = " ".join(f"X.on_validation_batch_start[{i}] X.on_validation_batch_end[{i}]" for i in indices)
    return f"X.on_validation_start X.on_validation_epoch_start {within} X.on_validation_epoch_end X.on_validation_end"


def sanity(*indices: str) -> str:
    """A sanity check over these batches."""
    return f"C.on_sanity_check_start D.val_dataloader {validation(*indices)} C.on_sanity_check_end"


def trained(*indices: int) -> str:
    """These training batches."""
    return " ".join(f"X.on_train_batch_start[{i}] X.on_train_batch_end[{i}]" for i in indices)


def epoch(*within: str) -> str:
    """An epoch in which this happens."""
    return f"X.on_train_epoch_start {' '.join(within)} X.on_train_epoch_end"


def training(*within: str) -> str:
    """A training in which this happens."""
    return f"X.on_train_start {' '.join(within)} X.on_train_end"


NO_SANITY = {"num_sanity_val_steps": 0}
FITS: dict[str, tuple[dict[str, Any], dict[str, int], list[str]]] = {
    "without validation": (
        {"limit_val_batches": 0},
        {},
        [START, "D.train_dataloader", training(epoch(trained(0, 1))), FINISH],
    ),
    "with a sanity check": (
        {},
        {},
        [START, sanity("0"), "D.train_dataloader", training(epoch(trained(0, 1), validation("0"))), FINISH],
    ),
    "without a sanity check": (
        NO_SANITY,
        {},
        [START, "D.train_dataloader D.val_dataloader", training(epoch(trained(0, 1), validation("0"))), FINISH],
    ),
    "three epochs": (
        {"max_epochs": 3},
        {},
        [START, sanity("0"), "D.train_dataloader", training(*[epoch(trained(0, 1), validation("0"))] * 3), FINISH],
    ),
    "a sanity check of two batches of three": (
        {},
        {"val": 3},
        [START, sanity("0", "1"), "D.train_dataloader", training(epoch(trained(0, 1), validation("0", "1", "2"))), FINISH],
    ),
    "validation within the epoch": (
        {**NO_SANITY, "val_check_interval": 0.5},
        {"train": 4},
        [
            *(START, "D.train_dataloader D.val_dataloader"),
            training(epoch(trained(0, 1), validation("0"), trained(2, 3), validation("0"))),
            FINISH,
        ],
    ),
    "validation within the epoch that does not meet its end": (
        {**NO_SANITY, "val_check_interval": 2},
        {"train": 3},
        [
            *(START, "D.train_dataloader D.val_dataloader"),
            training(epoch(trained(0, 1), validation("0"), trained(2))),
            FINISH,
        ],
    ),
    "two validation loaders": (
        {},
        {"val_loaders": 2, "val": 2},
        [
            *(START, sanity("0,0", "1,0", "0,1", "1,1"), "D.train_dataloader"),
            training(epoch(trained(0, 1), validation("0,0", "1,0", "0,1", "1,1"))),
            FINISH,
        ],
    ),
    "validation every other epoch asks for its loader when it comes": (
        {**NO_SANITY, "max_epochs": 3, "check_val_every_n_epoch": 2},
        {"train": 1},
        [
            *(START, "D.train_dataloader"),
            training(epoch(trained(0)), epoch(trained(0), "D.val_dataloader", validation("0")), epoch(trained(0))),
            FINISH,
        ],
    ),
    "max_epochs=0": ({"max_epochs": 0}, {}, [START, sanity("0"), "D.train_dataloader", FINISH]),
    "max_steps=0": ({"max_steps": 0}, {}, [START, sanity("0"), "D.train_dataloader", FINISH]),
    "limit_train_batches=0": ({"limit_train_batches": 0}, {}, [START, sanity("0"), FINISH]),
    "max_steps within the epoch": (
        {**NO_SANITY, "max_steps": 3, "max_epochs": 5},
        {"train": 4},
        [START, "D.train_dataloader D.val_dataloader", training(epoch(trained(0, 1, 2))), FINISH],
    ),
    "max_steps at the end of the second epoch": (
        {**NO_SANITY, "max_steps": 4, "max_epochs": 5},
        {},
        [
            *(START, "D.train_dataloader D.val_dataloader"),
            training(*[epoch(trained(0, 1), validation("0"))] * 2),
            FINISH,
        ],
    ),
    "fast_dev_run": (
        {"fast_dev_run": True},
        {"train": 3, "val": 3},
        [START, "D.train_dataloader D.val_dataloader", training(epoch(trained(0), validation("0"))), FINISH],
    ),
}


@pytest.mark.parametrize("batch_hooks", [True, False], ids=["batch hooks", "no batch hooks"])
@pytest.mark.parametrize(("options", "sizes", "parts"), FITS.values(), ids=FITS.keys())
def test_the_hooks_of_a_fit_come_in_order(
    options: dict[str, Any], sizes: dict[str, int], parts: list[str], batch_hooks: bool, quiet: Quiet
) -> None:
    journal = Journal(batch_hooks)
    quiet(callbacks=journal.callback(), **options).fit(journal.module(), datamodule=journal.data(**sizes))
    assert journal.entries == [entry for entry in expanded(*parts) if batch_hooks or "_batch_" not in entry]


def of_the_module(entries: list[str]) -> list[str]:
    """The same hooks where the module brings the data and there is no data module."""
    asked = [entry.replace("D.", "M.") if entry.endswith("_dataloader") else entry for entry in entries]
    return [entry for entry in asked if not entry.startswith("D.")]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "sizes", "parts"), FITS.values(), ids=FITS.keys())
def test_a_module_that_brings_its_data_is_asked_for_it_where_a_data_module_would_be(
    options: dict[str, Any], sizes: dict[str, int], parts: list[str], quiet: Quiet
) -> None:
    journal = Journal(batch_hooks=False)
    quiet(callbacks=journal.callback(), **options).fit(journal.module_with_data(**sizes))
    assert journal.entries == of_the_module([entry for entry in expanded(*parts) if "_batch_" not in entry])


def test_loaders_and_a_data_module_are_taken_instead_of_the_modules_own(quiet: Quiet) -> None:
    journal = Journal()
    quiet(callbacks=journal.callback()).fit(journal.module_with_data(train=1), batches(3))
    assert [entry for entry in journal.entries if "dataloader" in entry] == ["M.val_dataloader"]
    assert "M.on_train_batch_end[2]" in journal.entries
    journal.entries.clear()
    quiet(callbacks=journal.callback()).fit(journal.module_with_data(train=1), datamodule=journal.data(train=2, val=0))
    assert [entry for entry in journal.entries if "dataloader" in entry] == ["D.val_dataloader", "D.train_dataloader"]
    assert "M.on_train_batch_end[1]" in journal.entries
    assert "M.on_validation_start" not in journal.entries


VERBS = [("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict")]


@pytest.mark.parametrize(("verb", "loader"), VERBS)
def test_a_data_module_may_stand_in_the_loaders_place(verb: str, loader: str, quiet: Quiet) -> None:
    named, placed = Journal(), Journal()
    getattr(quiet(callbacks=named.callback()), verb)(named.module(), datamodule=named.data())
    getattr(quiet(callbacks=placed.callback()), verb)(placed.module(), placed.data())
    assert f"D.{loader}_dataloader" in placed.entries
    assert placed.entries == named.entries
    further: list[dict[str, Any]] = [{"datamodule": placed.data()}, *([{"val_dataloaders": batches(1)}] if verb == "fit" else [])]
    for more in further:
        with pytest.raises(ValueError, match="both dataloaders and a datamodule were given"):
            getattr(quiet(), verb)(placed.module(), placed.data(), **more)


CHECKPOINTS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "after each epoch, with the module's hook behind it": (
        {"max_epochs": 2},
        {},
        [
            training(*[f"{epoch(trained(0, 1, 2, 3), validation('0'))} {SAVE}"] * 2),
        ],
    ),
    "after each validation within an epoch, before the module's hook": (
        {"val_check_interval": 0.5},
        {},
        [
            training(
                epoch(
                    *(trained(0, 1), validation("0").replace("X.on_validation_end", "C.on_validation_end")),
                    *(SAVE, "M.on_validation_end", trained(2, 3)),
                    *(validation("0").replace("X.on_validation_end", "C.on_validation_end"), SAVE, "M.on_validation_end"),
                )
            )
        ],
    ),
    "after the steps that max_steps allowed": (
        {"max_steps": 3},
        {},
        [training(f"{epoch(trained(0, 1, 2))} {SAVE}")],
    ),
    "every other epoch": (
        {"max_epochs": 3},
        {"every_n_epochs": 2},
        [
            training(
                epoch(trained(0, 1, 2, 3), validation("0")),
                f"{epoch(trained(0, 1, 2, 3), validation('0'))} {SAVE}",
                epoch(trained(0, 1, 2, 3), validation("0")),
            )
        ],
    ),
    "never": ({}, {"save_top_k": 0}, [training(epoch(trained(0, 1, 2, 3), validation("0")))]),
}


@pytest.mark.parametrize(("options", "saving", "parts"), CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_the_hooks_of_saving_come_when_a_checkpoint_is_due(
    options: dict[str, Any], saving: dict[str, Any], parts: list[str], tmp_path: Path, quiet: Quiet
) -> None:
    journal = Journal()
    callbacks = [ModelCheckpoint(tmp_path / "kept", **saving), journal.callback()]
    trainer = quiet(callbacks=callbacks, num_sanity_val_steps=0, **options)
    trainer.fit(journal.module(), datamodule=journal.data(train=4))
    assert journal.entries == expanded(START, "D.train_dataloader D.val_dataloader", *parts, FINISH)


def test_a_checkpoint_of_every_second_step_is_saved_between_the_batches(tmp_path: Path, quiet: Quiet) -> None:
    journal = Journal()
    callbacks = [journal.callback(), ModelCheckpoint(tmp_path / "kept", every_n_train_steps=2, save_top_k=-1)]
    quiet(callbacks=callbacks).fit(journal.module(), datamodule=journal.data(train=5, val=0))
    saved = [place for place, entry in enumerate(journal.entries) if entry == "C.on_save_checkpoint"]
    assert len(saved) == 2
    for place, (before, after) in zip(saved, [(1, 2), (3, 4)], strict=True):
        assert journal.entries.index(f"C.on_train_batch_end[{before}]") < place
        assert place < journal.entries.index(f"C.on_train_batch_start[{after}]")


def interrupted_fit(quiet: Quiet, folder: Path, **options: Any) -> Path:
    """The checkpoint of a fit over four batches."""
    trainer = quiet(callbacks=[Journal().callback(), ModelCheckpoint(folder)], **options)
    trainer.fit(Tiny(), batches(4), batches(1))
    assert trainer.checkpoint_callback is not None
    return Path(trainer.checkpoint_callback.best_model_path)


LOAD = "M.on_load_checkpoint C.on_load_checkpoint C.load_state_dict"
RESUMED = f"{PREPARE} M.configure_model {LOAD} M.configure_optimizers X.on_fit_start {sanity('0')} D.train_dataloader"


@pytest.mark.parametrize(
    ("first", "then", "within"),
    [
        ({"max_epochs": 1}, {"max_epochs": 2}, training(epoch(trained(0, 1, 2, 3), validation("0")))),
        ({"max_epochs": 1}, {"max_epochs": 1}, ""),
        ({"max_steps": 3}, {"max_epochs": 1}, training(epoch(trained(3), validation("0")))),
        ({"max_steps": 2}, {"max_steps": 3}, training(epoch(trained(2)))),
    ],
    ids=["at the next epoch", "with nothing left", "within the epoch to its end", "within the epoch for one step"],
)
def test_a_resumed_fit_loads_before_it_makes_the_optimizer_and_goes_on_where_it_was(
    first: dict[str, Any], then: dict[str, Any], within: str, tmp_path: Path, quiet: Quiet
) -> None:
    path = interrupted_fit(quiet, tmp_path / "kept", **first)
    journal = Journal()
    trainer = quiet(callbacks=[journal.callback(), ModelCheckpoint(tmp_path / "others", save_top_k=0)], **then)
    trainer.fit(journal.module(), datamodule=journal.data(train=4), ckpt_path=path)
    assert journal.entries == expanded(RESUMED, within, FINISH)


def test_a_repeated_fit_surrounds_nothing_until_a_cap_is_raised(quiet: Quiet) -> None:
    journal = Journal()
    trainer, module = quiet(callbacks=journal.callback()), journal.module()
    trainer.fit(module, datamodule=journal.data())
    journal.entries.clear()
    with pytest.warns(UserWarning, match="trains nothing"):
        trainer.fit(module, datamodule=journal.data())
    again = [PREPARE, "M.configure_optimizers X.on_fit_start", sanity("0"), "D.train_dataloader"]  # the model stays
    assert journal.entries == expanded(*again, FINISH)
    journal.entries.clear()
    trainer.max_epochs = 2
    trainer.fit(module, datamodule=journal.data())
    assert journal.entries == expanded(*again, training(epoch(trained(0, 1), validation("0"))), FINISH)


def test_a_fit_that_is_stopped_within_an_epoch_validates_and_ends_the_epoch(quiet: Quiet) -> None:
    def stop(trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == 2

    journal = Journal()
    trainer = quiet(callbacks=[journal.callback(), LambdaCallback(on_train_batch_end=stop)], max_epochs=3, num_sanity_val_steps=0)
    trainer.fit(journal.module(), datamodule=journal.data(train=4))
    within = training(epoch(trained(0, 1), validation("0")))
    assert journal.entries == expanded(START, "D.train_dataloader D.val_dataloader", within, FINISH)


@pytest.mark.parametrize("batch_hooks", [True, False], ids=["batch hooks", "no batch hooks"])
@pytest.mark.parametrize(
    ("verb", "noun", "loader"),
    [("validate", "validation", "val"), ("test", "test", "test"), ("predict", "predict", "predict")],
)
def test_the_other_verbs_call_the_hooks_of_their_noun(verb: str, noun: str, loader: str, batch_hooks: bool, quiet: Quiet) -> None:
    journal = Journal(batch_hooks)
    getattr(quiet(callbacks=journal.callback()), verb)(journal.module(), datamodule=journal.data(val=2))
    hooks = validation("0", "1").replace("validation", noun)
    start = PREPARE.replace("(fit)", f"({verb})")
    end = f"D.teardown({verb}) C.teardown({verb}) M.teardown({verb})"
    expected = expanded(start, "M.configure_model", f"D.{loader}_dataloader", hooks, end)
    assert journal.entries == [entry for entry in expected if batch_hooks or "_batch_" not in entry]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "noun"), [("validate", "validation"), ("test", "test"), ("predict", "predict")])
def test_the_other_verbs_ask_a_module_that_brings_its_data(verb: str, noun: str, quiet: Quiet) -> None:
    journal = Journal()
    getattr(quiet(callbacks=journal.callback()), verb)(journal.module_with_data(val=2))
    start = PREPARE.replace("(fit)", f"({verb})")
    asked = f"M.configure_model D.{verb.replace('validate', 'val')}_dataloader"
    end = f"C.teardown({verb}) M.teardown({verb})"
    assert journal.entries == of_the_module(expanded(start, asked, validation("0", "1").replace("validation", noun), end))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["validate", "test"])
def test_the_metrics_are_printed_where_that_is_asked_for(verb: str, quiet: Quiet, capsys: pytest.CaptureFixture[str]) -> None:
    module, name = Tiny(), {"validate": "val_loss", "test": "test_loss"}[verb]
    trainer = quiet()
    ((one,), (first, second)) = (
        getattr(trainer, verb)(module, loaders, verbose=True) for loaders in (batches(2), [batches(2), batches(3)])
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [verb, "metric", "value"] in lines
    assert [name, f"{one[name]:.4f}"] in lines
    assert [verb, "metric", *("dataloader", "0"), *("dataloader", "1")] in lines
    assert [name, *(f"{each[f'{name}/dataloader_idx_{i}']:.4f}" for i, each in enumerate((first, second)))] in lines
    getattr(trainer, verb)(module, batches(2))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("verb", "limit"), [("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_a_verb_without_batches_asks_for_no_loader_and_runs_no_loop(verb: str, limit: str, quiet: Quiet) -> None:
    journal = Journal()
    options: dict[str, Any] = {f"limit_{limit}_batches": 0}
    assert getattr(quiet(callbacks=journal.callback(), **options), verb)(journal.module(), datamodule=journal.data()) == []
    start = PREPARE.replace("(fit)", f"({verb})")
    assert journal.entries == expanded(start, "M.configure_model", f"D.teardown({verb}) C.teardown({verb}) M.teardown({verb})")


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_two_loaders_are_gone_through_one_after_the_other(verb: str, quiet: Quiet) -> None:
    journal, noun = Journal(), {"validate": "validation"}.get(verb, verb)
    getattr(quiet(callbacks=journal.callback()), verb)(journal.module(), [batches(2), batches(1)])
    between = journal.entries[journal.entries.index(f"M.on_{noun}_epoch_start") + 1 :]
    expected = validation("0,0", "1,0", "0,1").replace("validation", noun)
    assert between[:12] == expanded(expected)[4:16]
    assert between[12] == f"C.on_{noun}_epoch_end"


@pytest.mark.slow
def test_the_default_predict_step_takes_several_loaders(quiet: Quiet) -> None:
    outputs = quiet().predict(Tiny(), [batches(2), batches(1)])
    assert [[part.shape for part in loader] for loader in outputs] == [[(2, 1), (2, 1)], [(2, 1)]]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_compiled_keras_model_takes_several_loaders(verb: str, quiet: Quiet) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    measured = [getattr(quiet(), verb)(model, loader)[0] for loader in (batches(2), batches(1))]
    together = getattr(quiet(), verb)(model, [batches(2), batches(1)])
    for index, (alone, one) in enumerate(zip(measured, together, strict=True)):
        assert one == pytest.approx({f"{name}/dataloader_idx_{index}": value for name, value in alone.items()})


def test_a_validation_hook_that_returns_no_data_leads_to_no_validation(quiet: Quiet) -> None:
    journal = Journal()
    quiet(callbacks=journal.callback()).fit(journal.module(), datamodule=journal.data(val=0))
    assert not [entry for entry in journal.entries if "on_validation" in entry]
    assert journal.entries.count("D.val_dataloader") == 1


def test_callbacks_are_called_in_the_order_given_and_before_the_module(quiet: Quiet) -> None:
    journal = Journal()
    quiet(callbacks=[journal.callback("C1"), journal.callback("C2")]).fit(journal.module(), batches(1), batches(1))
    for hook in ("on_fit_start", "on_train_epoch_start", "on_validation_end", "on_train_epoch_end", "on_fit_end"):
        marks = [entry.split(".")[0] for entry in journal.entries if entry.endswith(f".{hook}")]
        assert marks[:3] == ["C1", "C2", "M"], hook


def test_a_model_checkpoint_comes_after_all_other_callbacks(tmp_path: Path, quiet: Quiet) -> None:
    checkpoint, other = ModelCheckpoint(tmp_path / "kept"), Callback()
    assert quiet(callbacks=[checkpoint, other]).callbacks == [other, checkpoint]


def test_callbacks_of_the_module_take_the_place_of_those_of_their_kind(tmp_path: Path, quiet: Quiet) -> None:
    class Own(Callback):
        pass

    own, given, checkpoint = Own(), Own(), ModelCheckpoint(tmp_path / "kept")

    class Brings(Tiny):
        def configure_callbacks(self) -> Callback:
            return own

    trainer = quiet(callbacks=[given, checkpoint])
    trainer.fit(Brings(), batches(1))
    assert trainer.callbacks == [own, checkpoint]


def test_a_callback_of_the_module_is_called_from_its_setup_to_its_teardown(quiet: Quiet) -> None:
    journal = Journal(batch_hooks=False)
    brought = journal.callback()

    class Brings(Tiny):
        def configure_callbacks(self) -> Callback:
            return brought

    quiet().fit(Brings(), batches(1))
    assert journal.entries == [
        *("C.setup(fit)", "C.on_fit_start", "C.on_train_start", "C.on_train_epoch_start", "C.on_train_epoch_end"),
        *("C.on_train_end", "C.on_fit_end", "C.teardown(fit)"),
    ]


class CountsCalls(Callback):
    """How often the compiled training loop came back to Python."""

    calls = 0

    def on_train_steps_end(self, trainer: Trainer, module: Module) -> None:
        self.calls += 1


def test_no_hook_but_those_of_the_batches_shortens_the_calls(quiet: Quiet) -> None:
    counts, journal = CountsCalls(), Journal(batch_hooks=False)
    trainer = quiet(callbacks=[counts, journal.callback()], steps_per_call=4, max_epochs=2)
    trainer.fit(journal.module(), datamodule=journal.data(train=4))
    assert counts.calls == 2


@pytest.fixture(scope="module")
def shared() -> Tiny:
    """A module that the cases of a table share, so that its loops are traced once."""
    return Tiny()


@pytest.mark.parametrize("owner", ["module", "callback"])
@pytest.mark.parametrize(
    ("hook", "calls"),
    [
        *((f"on_train_batch_{moment}", 4) for moment in ("start", "end")),
        *((f"on_{noun}_batch_{moment}", 1) for noun in ("validation", "test", "predict") for moment in ("start", "end")),
    ],
)
def test_a_batch_hook_of_the_training_makes_each_call_one_step(
    owner: str, hook: str, calls: int, shared: Tiny, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, called = CountsCalls(), []
    if owner == "module":
        monkeypatch.setitem(vars(shared), hook, lambda *_: called.append(hook))  # setattr would leave the class's there
    other = LambdaCallback(**{hook: lambda *_: called.append(hook)}) if owner == "callback" else Callback()
    trainer = quiet(callbacks=[counts, other], steps_per_call=4)
    trainer.fit(shared, batches(4), batches(3))
    assert counts.calls == calls
    assert len(called) == {"train": 4, "validation": 5}.get(hook.split("_")[1], 0)  # two of the sanity check
