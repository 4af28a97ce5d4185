"""The presets pinned, protocols from files, and which fields make two scores differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluator import passport, protocol
from evaluator.errors import InputError
from evaluator.protocol import PRESETS, Protocol, measurement_fields, run_fields
from evaluator.records import content_hash

# A change here changes what published scores compare to: it needs a line in CHANGELOG.md.
GOLDEN = {
    "r1": "b964683a3e807210",
    "r1-cons64": "b964683a3e807210",
    "quick": "a6ed9a4f65e6163a",
    "greedy": "c836abe867049190",
}


def _hash(recipe: Protocol) -> str:
    return content_hash(
        measurement_fields(recipe, problems_hash="problems", prompt="prompt", grader="grader/1")
    )


def test_presets_do_not_change_silently() -> None:
    assert {name: _hash(recipe)[:16] for name, recipe in PRESETS.items()} == GOLDEN


def test_presets_measure_what_the_paper_says() -> None:
    r1 = PRESETS["r1"]
    assert (r1.sampling.temperature, r1.sampling.top_p, r1.sampling.max_tokens) == (
        0.6,
        0.95,
        32768,
    )
    assert r1.system_prompt is None
    drawn = {
        name: protocol.samples_for(r1, name)
        for name in ("aime_2024", "math_500", "gpqa_diamond", "codeforces")
    }
    assert drawn == {"aime_2024": 64, "math_500": 4, "gpqa_diamond": 8, "codeforces": 16}
    assert {protocol.samples_for(PRESETS["r1-cons64"], name) for name in drawn} == {64}
    assert PRESETS["quick"].samples == 4
    assert PRESETS["quick"].sampling.max_tokens == 4096
    assert (PRESETS["greedy"].samples, PRESETS["greedy"].sampling.temperature) == (1, 0)
    assert _hash(r1) == _hash(PRESETS["r1-cons64"]), "n is no measurement field"


FIELDS: dict[str, Any] = {"sampling": {"temperature": 1.0, "stop": ["\n\n"]}, "seed": 3}


def test_a_file_in_json_and_in_yaml_is_the_same_protocol(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(FIELDS))
    (tmp_path / "mine.yaml").write_text(
        'sampling: {temperature: 1.0, stop: ["\\n\\n"]}\nseed: 3  # a note\n'
    )
    one, other = (protocol.load(str(tmp_path / f"mine.{end}")) for end in ("json", "yaml"))
    assert one == other == Protocol.model_validate({"name": "mine", **FIELDS})


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("p.json", '{"seed": 1, "seed": 2}', "the field 'seed' comes twice"),
        ("p.yaml", "seed: 1\nseed: 2\n", "the field 'seed' comes twice"),
        ("p.yaml", "sampling:\n  top_p: 1\n  top_p: 0.5\n", "the field 'top_p' comes twice"),
        ("p.yaml", "sampling: [1", "not JSON or YAML"),
        ("p.json", "[1]", "must hold an object"),
        ("p.yaml", "", "must hold an object"),
        ("p.json", "\udcff", "cannot be read"),
        ("p.json", '{"sampling": {"temprature": 1}}', "sampling.temprature: Extra inputs"),
        ("p.yaml", "prompt: solve it", "prompt must contain {problem}"),
        ("p.yaml", "samples: 0", "samples: Input should be greater"),
        ("p.yaml", "!!python/object/apply:os.getcwd []", "not JSON or YAML"),
    ],
)
def test_files_that_are_no_protocol_are_refused_in_one_sentence(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as caught:
        protocol.load(str(tmp_path / name))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: r1, r1-cons64, quick, greedy"):
        protocol.load("r2")
    with pytest.raises(InputError, match="known: r1"):
        protocol.load(str(tmp_path))


CHANGES: list[tuple[dict[str, Any], str, str]] = [
    ({"sampling": {"temperature": 0.7}}, "sampling.temperature", "measurement"),
    ({"sampling": {"max_tokens": 10}}, "sampling.max_tokens", "measurement"),
    ({"sampling": {"stop": ["x"]}}, "sampling.stop", "measurement"),
    ({"thinking": {"kind": "none"}}, "thinking.kind", "measurement"),
    ({"thinking": {"open": "<t>"}}, "thinking.open", "measurement"),
    ({"policy": {"rounding": True}}, "policy.rounding", "measurement"),
    ({"prompt": "{problem}?"}, "prompt", "measurement"),
    ({"system_prompt": "Think."}, "system_prompt", "measurement"),
    ({"samples": 7}, "samples", "run"),
    ({"seed": 7}, "seed", "run"),
    ({"chat_template": "none"}, "chat_template", "run"),
    ({"context_tokens": 4096}, "context_tokens", "run"),
    ({"rope": {"kind": "linear", "factor": 2}}, "rope", "run"),
]


@pytest.mark.parametrize(("change", "field", "part"), CHANGES)
def test_a_changed_field_is_named_and_moves_its_own_fingerprint_only(
    change: dict[str, Any], field: str, part: str
) -> None:
    plain, changed = PRESETS["r1"], Protocol.model_validate(change)
    passports = [
        passport.make(p, benchmark="math_500", problems_hash="h", samples=p.samples or 4, engine={})
        for p in (plain, changed)
    ]
    found = {
        name: passport.differences(getattr(passports[0], name), getattr(passports[1], name))
        for name in ("measurement", "run")
    }
    assert [difference.field for difference in found[part]] == [field]
    assert not found["run" if part == "measurement" else "measurement"]
    one, other = passports
    assert (content_hash(one.measurement) == content_hash(other.measurement)) == (part == "run")
    assert (content_hash(one.run) == content_hash(other.run)) == (part == "measurement")


def test_every_protocol_field_is_in_a_fingerprint() -> None:
    """A field that no fingerprint holds could change a score unseen."""
    measured = measurement_fields(PRESETS["r1"], problems_hash="", prompt="", grader="")
    held = measured | run_fields(PRESETS["r1"], samples=1, engine={})
    assert set(Protocol.model_fields) - {"name", "drawn_elsewhere"} <= set(held)


def test_completions_made_elsewhere_never_pass_for_ours() -> None:
    """What is not known of them is null, so no preset has their measurement hash."""
    elsewhere = PRESETS["r1"].model_copy(update={"drawn_elsewhere": True})
    fields = measurement_fields(elsewhere, problems_hash="p", prompt="text", grader="g")
    assert fields["sampling"] is None
    assert fields["prompt"] is None
    ours = measurement_fields(PRESETS["r1"], problems_hash="p", prompt="text", grader="g")
    assert {name for name in ours if ours[name] != fields[name]} == {"sampling", "prompt"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_does_not_differ_from_itself(name: str) -> None:
    one, other = passport.read_both(name, name)
    assert one == other
    assert not passport.differences(one.measurement, other.measurement)


def test_a_protocol_beside_metrics_takes_the_benchmark_of_the_metrics(tmp_path: Path) -> None:
    made = passport.make(
        PRESETS["r1"], benchmark="aime_2024", problems_hash="h", samples=64, engine={"name": "x"}
    )
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"pass@1": {}, "benchmark": "aime_2024"} | made.to_json()))
    one, other = passport.read_both("r1", str(path))
    assert not passport.differences(one.measurement, other.measurement)
    assert not passport.differences(one.run, other.run)
    one, other = passport.read_both("quick", str(path))
    assert [d.field for d in passport.differences(one.measurement, other.measurement)] == [
        "sampling.max_tokens"
    ]
    path.write_text(json.dumps({"pass@1": {}, "benchmark": "aime_2024"}))
    with pytest.raises(InputError, match="carries no measurement fields"):
        passport.read_both("r1", str(path))
    with pytest.raises(InputError, match="no graded run"):
        passport.read_both("r1", str(tmp_path / ".."))
