"""What ships beside the bundled model tells of that model."""

import json
import re
from pathlib import Path

from tbd_core.checkpoint import store
from tbd_core.config import TINY_BUNDLE
from tbd_core.evaluation.account import ACCOUNT
from tbd_core.evaluation.proof_text import goal_rows, write_text
from tbd_core.evaluation.readers import READER_FILE, load_readers


DOCS = Path(__file__).parents[2] / "docs"
MOST_BYTES = 40e6


def test_the_proof_and_the_account_are_of_the_bundle_beside_them():
    details = json.loads((DOCS / "proof.json").read_text("utf-8"))
    assert details["training"] == store.read_about(TINY_BUNDLE)["training"]
    assert details["reader"] == load_readers(READER_FILE).about
    proof, account = (path.read_text("utf-8") for path in (DOCS / "proof.md", TINY_BUNDLE.with_name(ACCOUNT)))
    assert all(row in account for row in goal_rows(details))
    (command,) = re.findall(r"Made by `(.+?)`", proof)
    shown = re.findall(r"\(proof/(.+?)\)", proof)
    assert write_text(details, shown, command) == proof
    assert sorted(shown) == sorted(path.name for path in (DOCS / "proof").iterdir())


def test_everything_that_ships_with_the_bundle_is_small():
    assert sum(path.stat().st_size for path in TINY_BUNDLE.parent.iterdir()) <= MOST_BYTES
