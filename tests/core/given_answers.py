"""What thinkers say: four answers that hold, and what is no answer at all."""

FACE = {"subject": "A woman with short dark hair, round glasses", "face": "level brows, lips parted"}
UNITS = {"units": [{"number": 12, "level": "C", "side": "both"}, {"number": "AU1", "level": "b", "side": "left"}]}
MUSCLES = {
    "muscles": [
        {"muscle": "zygomaticus major", "units": [12], "movement": "the mouth corners drawn up"},
        {"muscle": "frontalis (medial part)", "units": [1], "movement": "the inner left brow lifted"},
    ]
}
PROMPTS = {
    "coarse": "A woman with short dark hair, round glasses, speaks in a happy mood.",
    "fine": "The face shows slight left inner brow raiser and marked lip corner puller.",
    "negative": "a sad look, blurred face",
}
GOOD = (FACE, UNITS, MUSCLES, PROMPTS)
BAD_ANSWERS = [
    ("", r"the answer is empty \(0 characters, no JSON\)"),
    ("  \n", r"the answer is empty \(3 characters, no JSON\)"),
    ("<think>hm, a face, or two", r"the answer is empty \(25 characters, no JSON\)"),
    ("I think that she smiles.", "no JSON object in the answer, which begins 'I think that she smiles.'"),
    ('["a list"]', "no JSON object"),
    ('{"units": [12,', "the JSON is not valid: Expecting value at character 14"),
    ("{'units': []}", "the JSON is not valid: Expecting property name .* at character 1 "),
    ("x" * 200_000, "the answer has more than 16000 characters"),
    ('{"units": ' + "[" * 15_000, r"the JSON cannot be read \(RecursionError\)|the JSON is not valid"),
    ('{"units": [{"number": ' + "9" * 5_000, r"the JSON cannot be read \(ValueError\)"),
]
