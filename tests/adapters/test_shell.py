"""What differs between versions of ComfyUI, and the objects on the pack's own wires."""

from pathlib import Path

import torch


def test_schema_fields_that_this_comfyui_lacks_are_left_out(pack):
    from tbd_pack.nodes.compat import Vae, extra, has

    assert has("is_experimental") and not has("search_aliases")
    assert extra(is_experimental=True, search_aliases=["talking head"]) == {"is_experimental": True}
    assert Vae.io_type == "VAE"


def test_wire_types_have_the_names_of_saved_graphs(pack):
    from tbd_pack.nodes import sockets

    kinds = (sockets.AUDIO_ENCODER, sockets.AUDIO, sockets.REFERENCE, sockets.THOUGHT, sockets.CROP)
    names = [kind.io_type for kind in kinds]
    assert names == ["TBD_AUDIO_ENCODER", "TBD_AUDIO", "TBD_REFERENCE", "TBD_THOUGHT", "TBD_CROP"]


def test_objects_on_wires_compare_by_identity_and_print_no_tensors(pack):
    from tbd_pack.nodes.sockets import EncodedReference, EncodedSpeech
    from tbd_pack.tbd_core.flow import Speech

    speech = Speech(torch.zeros(32000), num_frames=50, seconds=2.0, source="hello.wav")
    bundle = Path("small.safetensors")
    spoken = [EncodedSpeech(torch.zeros(56, 2, 4), speech, "digest", bundle) for _ in range(2)]
    assert spoken[0] == spoken[0] and spoken[0] != spoken[1]
    assert repr(spoken[0]) == "EncodedSpeech(50 frames, 2.00 s, hello.wav)"
    seen = [EncodedReference(torch.zeros(1, 4, 8, 8), {}, (64, 64), "face.png", (), "digest", bundle) for _ in "ab"]
    assert seen[0] != seen[1]
    assert repr(seen[0]) == "EncodedReference(64 x 64, face.png)"
