"""Whose face it is: 512 numbers from a file, or from insightface's recognition."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tbd_core.detectors import Face
from tbd_core.embedding import read_embedding, read_numbers
from tbd_core.errors import InputError


POINTS = ((30.0, 40.0), (60.0, 40.0), (45.0, 55.0), (35.0, 70.0), (55.0, 70.0))
PICTURE = Image.new("RGB", (100, 100), (200, 100, 50))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("short.npy", np.zeros(128, np.float32), r"holds \[\[128\]\]; give an embedding of 512 numbers"),
        ("nan.npy", np.full(512, np.nan, np.float32), "has 512 of 512 numbers that are NaN"),
        ("zeros.npy", np.zeros(512, np.float32), "holds 512 zeros, which is nobody's face"),
        ("code.npy", np.array([{"a": 1}], dtype=object), "cannot be read .*allow_pickle.*; give an embedding of 512"),
        ("two.safetensors", {"a": torch.ones(512), "b": torch.ones(512)}, r"holds \[\[512\], \[512\]\]"),
        ("complex.npy", np.ones(512, np.complex64), "holds 512 complex numbers; give an embedding of 512 numbers"),
        ("complex.safetensors", {"a": torch.ones(512, dtype=torch.complex64)}, "holds 512 complex numbers"),
        ("cut.safetensors", b"no header", "cannot be read .*; give an embedding of 512 numbers"),
    ],
)
def test_an_embedding_that_is_none_is_refused(tmp_path, name, value, said):
    path = tmp_path / name
    if isinstance(value, bytes):
        path.write_bytes(value)
    elif isinstance(value, dict):
        save_file(value, path)
    else:
        np.save(path, value, allow_pickle=True)
    with pytest.raises(InputError, match=said):
        read_embedding(path)


def test_an_embedding_of_one_row_and_of_safetensors_is_read(tmp_path):
    np.save(tmp_path / "row.npy", np.ones((1, 512), np.float64))
    save_file({"embedding": torch.ones(512, dtype=torch.float16)}, tmp_path / "one.safetensors")
    for name in ("row.npy", "one.safetensors"):
        assert torch.equal(read_embedding(tmp_path / name), torch.ones(512))


@pytest.fixture
def insightface(monkeypatch, tmp_path):
    """A stand-in for the package; says what its network was given, and gives `numbers` numbers."""
    asked = {"numbers": 512}

    def norm_crop(picture, landmark):
        asked["bgr"], asked["points"] = picture[0, 0].tolist(), landmark
        return picture[:112]

    network = SimpleNamespace(
        prepare=lambda ctx_id: asked.update(device=ctx_id),
        get_feat=lambda face: np.full((1, asked["numbers"]), 2.0, np.float32),
    )
    zoo = SimpleNamespace(get_model=lambda path: asked.get("network", network))
    monkeypatch.setitem(sys.modules, "insightface", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", zoo)
    monkeypatch.setitem(sys.modules, "insightface.utils", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "insightface.utils.face_align", SimpleNamespace(norm_crop=norm_crop))
    (tmp_path / "glintr100.onnx").write_bytes(b"model")
    asked["path"] = tmp_path / "glintr100.onnx"
    return asked


def test_the_ending_may_be_written_large(insightface, tmp_path):
    upper = insightface["path"].rename(tmp_path / "GLINTR100.ONNX")
    assert read_embedding(upper, PICTURE, Face((20, 20, 60, 60), points=POINTS)).shape == (512,)
    save_file({"embedding": torch.ones(512)}, tmp_path / "ONE.SAFETENSORS")
    assert torch.equal(read_embedding(tmp_path / "ONE.SAFETENSORS"), torch.ones(512))


@pytest.mark.parametrize("name", ["glintr100.onnx", "M.ONNX"])
def test_a_host_reads_numbers_and_no_model(tmp_path, name):
    (tmp_path / name).write_bytes(b"model")
    with pytest.raises(InputError, match=f"^{name} is a recognition model, not its 512 numbers; give an") as caught:
        read_numbers(tmp_path / name)
    assert "--face-detector" not in str(caught.value)
    np.save(tmp_path / "who.npy", np.ones(512))
    assert torch.equal(read_numbers(tmp_path / "who.npy"), read_embedding(tmp_path / "who.npy"))
    np.save(tmp_path / "short.npy", np.ones(9))
    with pytest.raises(InputError, match=r"holds \[\[9\]\]; give .* \(.npy, .safetensors\), of one face$"):
        read_numbers(tmp_path / "short.npy")


def test_a_recognition_model_sees_the_face_aligned_by_its_five_points(insightface):
    values = read_embedding(insightface["path"], PICTURE, Face((20, 20, 60, 60), points=POINTS))
    assert torch.equal(values, torch.full((512,), 2.0))
    assert insightface["points"].tolist() == [list(point) for point in POINTS]
    assert insightface["bgr"] == [50, 100, 200] and insightface["device"] == -1


@pytest.mark.parametrize(
    ("face", "said"),
    [
        (None, "needs 5 points of the face, and no face was looked for; set --face auto"),
        (Face((2, 2, 9, 9), detector="lbp"), "needs 5 points of the face, and the face is lbp's, without them"),
    ],
)
def test_a_face_without_points_is_not_recognised(insightface, face, said):
    with pytest.raises(InputError, match=said):
        read_embedding(insightface["path"], PICTURE, face)


def test_a_model_that_recognises_nobody_is_refused(insightface):
    face = Face((20, 20, 60, 60), points=POINTS)
    insightface["numbers"] = 128
    with pytest.raises(InputError, match="gives 128 numbers; give an embedding of 512 numbers"):
        read_embedding(insightface["path"], PICTURE, face)
    insightface["network"] = None  # what the package gives for another kind of model
    with pytest.raises(InputError, match="cannot be used as a recognition model .*NoneType.*; give an embedding"):
        read_embedding(insightface["path"], PICTURE, face)
