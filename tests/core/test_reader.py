"""How the readers are taught: what the corpus says, how pictures are roughened, and that learning reaches them."""

import pytest
import torch

from tbd_core.data.plans import random_plans, unit_levels
from tbd_core.evaluation.readers import ExpressionReader, IdentityReader, load_readers, save_readers
from tbd_core.synthetic.face import AU_NUMBERS, NUM_IDENTITY, Face, random_identity
from tbd_core.synthetic.portrait import render
from tbd_core.training.loop import Recipe, Run
from tbd_core.training.reader import measure, reader_loss, soften, train_reader, truths


PEOPLE, PER = 8, 2


@pytest.fixture(scope="module")
def corpus():
    generator = torch.Generator().manual_seed(0)
    plans = random_plans(PEOPLE * PER, 3)
    identity = random_identity(generator, PEOPLE)
    mouth, blink = torch.rand(PEOPLE * PER, 3, generator=generator), torch.zeros(PEOPLE * PER)
    blink[0] = 1.0
    faces = render(Face(identity.repeat_interleave(PER, 0), unit_levels(plans), mouth, blink), 64)
    still = Face(identity, torch.zeros(PEOPLE, len(AU_NUMBERS), 2), torch.zeros(PEOPLE, 3), torch.zeros(PEOPLE))

    def to_bytes(pictures):
        return (pictures * 255).round().to(torch.uint8)

    return {
        "portraits": to_bytes(render(still, 64)),
        "faces": to_bytes(faces).unflatten(0, (PEOPLE, PER)),
        "identity": identity,
        "mouth": mouth.unflatten(0, (PEOPLE, PER)),
        "blink": blink.unflatten(0, (PEOPLE, PER)),
    }, plans


def test_readings_have_the_promised_shapes_at_any_size():
    with torch.no_grad():
        read = ExpressionReader()(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
        who = IdentityReader()(torch.rand(2, 3, 160, 160))
    assert read.units.shape == (2, len(AU_NUMBERS), 2) and read.mouth.shape == (2, 3)
    assert read.closed.shape == (2,) and read.emotions.shape == (2, 8) and who.shape == (2, NUM_IDENTITY)


def test_truths_are_those_of_the_chosen_people(corpus):
    faces, plans = corpus
    truth = truths(faces, plans, range(2, 5))
    assert torch.equal(truth["units"], unit_levels(plans[4:10]))
    assert torch.equal(truth["identity"][::PER], faces["identity"][2:5])
    assert truth["emotions"].tolist().count(-1) == sum(not plan.pure for plan in plans[4:10])
    assert truths(faces, plans, range(1))["closed"][0] == 1


def test_softening_changes_each_picture_in_its_own_way_and_keeps_its_colours():
    picture = torch.rand(1, 3, 32, 32)
    a, b = soften(picture.repeat(2, 1, 1, 1), torch.Generator().manual_seed(1))
    assert not torch.allclose(a, b, atol=1e-3)
    assert (a.mean((1, 2)) - picture[0].mean((1, 2))).abs().max() < 0.02


def test_training_lowers_the_loss_and_writes_a_file_that_reads_alike(corpus, tmp_path):
    faces, plans = corpus
    run, recipe = Run(tmp_path, torch.device("cpu")), Recipe(steps=12, batch=8, learning_rate=4e-3, warmup=1)
    torch.manual_seed(0)
    fresh = ExpressionReader(), IdentityReader()
    loss = reader_loss(run, *fresh, faces, plans, range(7), 8)
    before = float(loss(torch.Generator().manual_seed(9))["loss"].detach())
    made = train_reader(run, faces, plans, recipe, "key")
    save_readers(tmp_path / "reader.safetensors", made)
    readers = load_readers(tmp_path / "reader.safetensors")
    loss = reader_loss(run, readers.expression, readers.identity, faces, plans, range(7), 8)
    assert float(loss(torch.Generator().manual_seed(9))["loss"]) < 0.8 * before
    again = measure(readers, faces, plans, range(7, 8))
    assert again["au_rms_mean"] == pytest.approx(made.about["errors"]["au_rms_mean"], abs=0.02)
    assert made.about["errors"]["people"] == 1 and readers.about["training"]["people"] == 7
    assert (tmp_path / "reader.safetensors").stat().st_size < 1_000_000
