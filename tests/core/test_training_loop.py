"""The training loop: what learns, what is kept when anything goes wrong, and that a resumed run is the unbroken one."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tbd_core.errors import InputError
from tbd_core.training import loop
from tbd_core.training.kept import read_about
from tbd_core.training.loop import Recipe, Run, fit, schedule


RECIPE = Recipe(steps=12, batch=1, learning_rate=0.05, warmup=2, save_every=4, ema=0.5)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_run(folder) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(folder, torch.device("cpu"))


def line(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def line_loss(module, at: int | None = None, act=None):
    """The loss and a list which grows with each call; in call number `at` (from 1) `act` is called."""
    steps = []

    def loss(generator):
        steps.append(generator.initial_seed())
        if len(steps) == at:
            act()
        x = torch.randn(8, 3, generator=generator)
        return {"loss": (module(x) - x.sum(1, keepdim=True)).pow(2).mean()}

    return loss, steps


def picture_net(seed: int = 0) -> nn.Module:
    """Everything whose state could be forgotten: channels-last kernels, buffers, dropout."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 4 * 4, 1)
    )
    return net.to(memory_format=torch.channels_last)


def picture_loss(net, at: int | None = None, act=None):
    """As `line_loss`; the list holds the weights at the beginning of each step."""
    weights = []

    def loss(generator):
        weights.append([p.detach().clone() for p in net.parameters()])
        if len(weights) == at:
            act()
        x = torch.randn(4, 4, 6, 6, generator=generator).contiguous(memory_format=torch.channels_last)
        return {"loss": (net(x) - 1).pow(2).mean()}

    return loss, weights


def press(number: int = signal.SIGINT) -> None:
    signal.raise_signal(number)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_training_descends(tmp_path):
    module = line()
    loss, _ = line_loss(module)
    before = loss(torch.Generator().manual_seed(9))["loss"].item()
    fit(a_run(tmp_path), "line", {"line": module}, loss, replace(RECIPE, steps=200), "key")
    assert loss(torch.Generator().manual_seed(9))["loss"].item() < before / 10
    assert left(tmp_path) == ["line.safetensors", "log.jsonl"]


def test_a_finished_part_is_not_trained_again_unless_its_key_changes(tmp_path):
    module = line()
    fit(a_run(tmp_path), "line", {"line": module}, line_loss(module)[0], RECIPE, "key")
    again = line(seed=3)
    loss, steps = line_loss(again)
    fit(a_run(tmp_path), "line", {"line": again}, loss, RECIPE, "key")
    assert steps == [] and torch.equal(module.weight, again.weight)
    fit(a_run(tmp_path), "line", {"line": again}, loss, replace(RECIPE, steps=3), "another")
    assert len(steps) == 3


def test_a_key_does_not_depend_on_how_often_is_saved_and_shown():
    assert RECIPE.decides() == replace(RECIPE, save_every=1, show_every=1).decides()
    assert RECIPE.decides() != replace(RECIPE, seed=1).decides()


def test_only_what_is_named_learns(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    before = module[0].weight.clone()
    fit(a_run(tmp_path), "two", {"two": module}, line_loss(module)[0], RECIPE, "key", lambda key: key.startswith("1."))
    assert torch.equal(module[0].weight, before)


def test_every_log_line_is_json_with_step_and_loss(tmp_path):
    module = line()
    fit(a_run(tmp_path), "line", {"line": module}, line_loss(module)[0], replace(RECIPE, steps=40), "key")
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in lines] == [20, 40] and all(entry["loss"] > 0 for entry in lines)


def test_learning_rate_warms_up_and_comes_down():
    recipe = Recipe(steps=100, batch=1, learning_rate=1.0, warmup=10)
    rates = [schedule(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[-1] < 0.03
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_step_is_adamw_and_the_average_diffusers_own(tmp_path):
    """By hand, with neither fused: for channels-last kernels too, of which the fused step reads raw memory."""
    from diffusers.training_utils import EMAModel

    trained, plain = picture_net(), picture_net()
    recipe = replace(RECIPE, steps=5, ema=0.9)
    fit(a_run(tmp_path), "net", {"net": trained}, picture_loss(trained)[0], recipe, "key")
    optimizer = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.99), weight_decay=0.01, foreach=False)
    average = EMAModel(plain.parameters(), decay=0.9, use_ema_warmup=True, power=0.75)
    loss, _ = picture_loss(plain.train())
    for step in range(5):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * schedule(recipe, step)
        torch.manual_seed(loop.step_seed(0, "net", step, "modules"))
        optimizer.zero_grad()
        loss(loop.step_generator(0, "net", step))["loss"].backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        average.step(plain.parameters())
    for got, expected in zip(trained.parameters(), average.shadow_params, strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


# Interrupted.


@pytest.mark.parametrize("muon", [0.0, 0.01])
def test_a_run_interrupted_at_any_step_ends_bit_for_bit_as_an_unbroken_one(tmp_path, muon):
    recipe = replace(RECIPE, steps=6, muon=muon)
    whole = picture_net()
    loss, unbroken = picture_loss(whole)
    fit(a_run(tmp_path / "whole"), "net", {"net": whole}, loss, recipe, "key")
    for at in (1, 3, 6):
        folder = tmp_path / str(at)
        net = picture_net()
        loss, before = picture_loss(net, at, press)
        with pytest.raises(KeyboardInterrupt):
            fit(a_run(folder), "net", {"net": net}, loss, recipe, "key")
        net = picture_net(seed=5)  # a new process begins with other weights
        loss, after = picture_loss(net)
        fit(a_run(folder), "net", {"net": net}, loss, recipe, "key")
        assert len(before) == at and len(after) == 6 - at  # the step is finished and saved: nothing is lost
        for step, weights in zip(unbroken, before + after, strict=True):
            assert all(map(torch.equal, step, weights))
        one, other = (load_file(tmp_path / name / "net.safetensors") for name in ("whole", str(at)))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        losses = [read_about(tmp_path / name / "net.safetensors")["losses"] for name in ("whole", str(at))]
        assert losses[0] == losses[1]


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from tests.core.test_training_loop import RECIPE, a_run, fit, line, line_loss

torch.set_num_threads(1)
save, saved = Path.write_bytes, []
def write_bytes(path, data):  # the second checkpoint is cut short
    saved.append(path)
    if len(saved) == 2:
        save(path, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, data)
Path.write_bytes = write_bytes
module = line()
fit(a_run(Path(sys.argv[1])), "line", {"line": module}, line_loss(module)[0], RECIPE, "key")
"""


def assert_it_goes_on(tmp_path: Path) -> None:
    """What lies in `killed` ends as an unbroken run."""
    assert len(left(tmp_path / "killed")) == 2  # step 4's, and half of step 8's
    whole, killed = line(), line(seed=5)
    loss, steps = line_loss(killed)
    fit(a_run(tmp_path / "whole"), "line", {"line": whole}, line_loss(whole)[0], RECIPE, "key")
    fit(a_run(tmp_path / "killed"), "line", {"line": killed}, loss, RECIPE, "key")
    assert len(steps) == 8 and torch.equal(whole.weight, killed.weight) and torch.equal(whole.bias, killed.bias)
    assert left(tmp_path / "killed") == ["line.safetensors", "log.jsonl"]


def test_what_a_kill_while_it_saves_leaves_goes_on_from_the_checkpoint_before(tmp_path, monkeypatch):
    """The folder is copied as it stands when the second checkpoint is half on the disk."""
    write, saved = Path.write_bytes, []

    def cut_short(path, data):
        saved.append(path)
        if len(saved) == 2:
            write(path, data[: len(data) // 2])
            shutil.copytree(tmp_path / "run", tmp_path / "killed")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", cut_short)
    module = line()
    fit(a_run(tmp_path / "run"), "line", {"line": module}, line_loss(module)[0], RECIPE, "key")
    monkeypatch.undo()
    assert_it_goes_on(tmp_path)


@pytest.mark.slow  # another process imports torch and diffusers
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(tmp_path):
    code = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "killed"], cwd=ROOT, capture_output=True).returncode
    assert code == -signal.SIGKILL
    assert_it_goes_on(tmp_path)


def test_a_second_ctrl_c_does_not_wait_and_costs_at_most_one_interval(tmp_path):
    module = line()
    loss, steps = line_loss(module, 7, lambda: (press(), press(), pytest.fail("the second did not stop it")))
    with pytest.raises(KeyboardInterrupt):
        fit(a_run(tmp_path), "line", {"line": module}, loss, RECIPE, "key")
    loss, steps = line_loss(module)
    fit(a_run(tmp_path), "line", {"line": module}, loss, RECIPE, "key")
    assert len(steps) == 8  # from the checkpoint at step 4


def test_signals_are_handled_afterwards_as_before(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        module = line()
        with pytest.raises(KeyboardInterrupt):
            fit(a_run(tmp_path), "line", {"line": module},
                line_loss(module, 2, lambda: press(signal.SIGTERM))[0], RECIPE, "key")  # fmt: skip
        press(signal.SIGTERM)
        assert heard == ["SIGTERM", "SIGTERM"] and signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_it_trains_in_another_thread_too(tmp_path):
    module = line()
    loss, steps = line_loss(module)
    thread = threading.Thread(target=fit, args=(a_run(tmp_path), "line", {"line": module}, loss, RECIPE, "key"))
    thread.start()
    thread.join()
    assert len(steps) == 12 and (tmp_path / "line.safetensors").exists()


# Bad input.


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_on_a_full_disk_the_checkpoint_before_stays(tmp_path, monkeypatch):
    module = line()
    loss, _ = line_loss(module, 6, lambda: monkeypatch.setattr("tbd_core.files.os.fsync", full))
    with pytest.raises(InputError, match=r"line.checkpoint.pt could not be written \(No space left.*free some") as got:
        fit(a_run(tmp_path), "line", {"line": module}, loss, RECIPE, "key")
    assert f"free some space in {tmp_path}," in one_line(got)
    monkeypatch.undo()
    assert left(tmp_path) == ["line.checkpoint.pt"]
    loss, steps = line_loss(module)
    fit(a_run(tmp_path), "line", {"line": module}, loss, RECIPE, "key")
    assert len(steps) == 8


@pytest.mark.parametrize("what", ["line.safetensors", "log.jsonl"])
def test_a_full_disk_is_one_line_for_the_finished_part_and_the_log(tmp_path, monkeypatch, what):
    module = line()
    if what == "log.jsonl":
        monkeypatch.setattr(loop, "open", full, raising=False)
    else:
        monkeypatch.setattr("tbd_core.training.kept.save_file", full)
    with pytest.raises(InputError, match=rf"{what} could not be written \(No space left") as got:
        fit(a_run(tmp_path), "line", {"line": module}, line_loss(module)[0], RECIPE, "key")
    monkeypatch.undo()
    one_line(got)
    assert "line.safetensors" not in left(tmp_path) and "line.checkpoint.pt" in left(tmp_path)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize(("at", "kept"), [(3, "no checkpoint was due before"), (7, "the checkpoint of step 4 is kept")])
def test_what_is_not_finite_stops_the_run_and_is_never_stepped_nor_saved(tmp_path, what, at, kept):
    module = line()
    plain, steps = line_loss(module)

    def loss(generator):
        value = plain(generator)["loss"]
        if len(steps) == at and what == "loss":
            value = value * torch.nan
        if len(steps) == at and what == "gradient":  # the root of 0 is 0, its slope is not finite
            value = value + (module.weight.sum() * 0).sqrt()
        return {"loss": value}

    with pytest.raises(InputError, match=f"line: the {what} is nan at step {at} of 12, .*{kept}; .*lower") as got:
        fit(a_run(tmp_path), "line", {"line": module}, loss, RECIPE, "key")
    one_line(got)
    assert torch.isfinite(module.weight).all()
    assert left(tmp_path) == (["line.checkpoint.pt"] if at == 7 else [])
    if at == 7:
        assert torch.load(tmp_path / "line.checkpoint.pt", weights_only=True)["step"] == 4


def damaged(path: Path) -> dict[str, bytes]:
    whole = path.read_bytes()
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "no model at all": b"hello world, this is text",
    }


@pytest.mark.parametrize("name", ["line.checkpoint.pt", "line.safetensors"])
def test_a_damaged_file_is_named_and_deleting_it_trains_the_part_anew(tmp_path, name):
    module = line()
    act = press if name.endswith(".pt") else (lambda: None)
    try:
        fit(a_run(tmp_path), "line", {"line": module}, line_loss(module, 4, act)[0], RECIPE, "key")
    except KeyboardInterrupt:
        assert name.endswith(".pt")
    for contents in damaged(tmp_path / name).values():
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(InputError, match=rf"{name} cannot be used \(.+\); delete it, and this part is tr") as got:
            fit(a_run(tmp_path), "line", {"line": module}, line_loss(module)[0], RECIPE, "key")
        one_line(got)
    (tmp_path / name).unlink()
    loss, steps = line_loss(module)
    fit(a_run(tmp_path), "line", {"line": module}, loss, RECIPE, "key")
    assert len(steps) == 12


@pytest.mark.parametrize("state", [[1, 2], {"weights": torch.ones(2)}, {"key": "key", "modules": {"line": {}}}])
def test_a_foreign_checkpoint_is_named(tmp_path, state):
    torch.save(state, tmp_path / "line.checkpoint.pt")
    module = line()
    with pytest.raises(InputError, match="line.checkpoint.pt cannot be used"):
        fit(a_run(tmp_path), "line", {"line": module}, line_loss(module)[0], RECIPE, "key")


# Validation while training.


def test_validation_sees_the_average_at_the_steps_asked_for_and_changes_nothing(tmp_path):
    plain, shown = picture_net(), picture_net()
    fit(a_run(tmp_path / "plain"), "net", {"net": plain}, picture_loss(plain)[0], RECIPE, "key")
    seen = []

    def validate(step: int) -> None:
        assert not shown.training and not torch.is_grad_enabled()
        torch.rand(3)  # draws from the generator that dropout draws from
        state = torch.load(tmp_path / "shown" / "net.checkpoint.pt", weights_only=True) if step < 12 else None
        if state:  # saved before it is shown
            assert state["step"] == step
            assert all(map(torch.equal, shown.parameters(), state["ema"]))
            assert not torch.equal(shown[0].weight, state["modules"]["net"]["0.weight"])
        seen.append(step)

    recipe = replace(RECIPE, show_every=3)
    fit(a_run(tmp_path / "shown"), "net", {"net": shown}, picture_loss(shown)[0], recipe, "key", validate=validate)
    assert seen == [3, 6, 9, 12]
    assert all(map(torch.equal, plain.state_dict().values(), shown.state_dict().values()))


def test_an_error_in_validation_loses_no_step(tmp_path):
    def validate(step: int) -> None:
        raise ZeroDivisionError

    module = line()
    recipe = replace(RECIPE, show_every=6)
    for trained in (6, 6, 0):
        loss, steps = line_loss(module)
        with pytest.raises(ZeroDivisionError) if trained else nullcontext():
            fit(a_run(tmp_path), "line", {"line": module}, loss, recipe, "key", validate=validate)
        assert len(steps) == trained
