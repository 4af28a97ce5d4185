"""Preflight: every fault is planted once, and told in one sentence with its remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distiller import corpus, preflight
from distiller.checks import checks_of_corpus, require_passed
from distiller.corpus import Encoder
from distiller.errors import CorpusError, InputError
from distiller.filters import Trace
from distiller.preflight import Check, Level, Report
from evaluator.benchmarks import arithmetic
from evaluator.protocol import Thinking
from evaluator.records import Problem
from tests.distiller.samples import make_tiny, recipe, trace

PROMPTS = arithmetic.generate(6, seed=3)
GOOD = "<think>\nwell\n</think>\n\n\\boxed{2}"


def check(
    base: Path,
    name: str,
    *,
    prompts: Sequence[Problem] = PROMPTS,
    traces: Sequence[Trace] | None = None,
    held: dict[str, list[Problem]] | None = None,
    probe: Callable[[Any], tuple[int, float]] | None = None,
    **changes: Any,
) -> Check:
    """The one check of that name; every sentence is a sentence, and errors have a remedy."""
    changes = {"training": {"max_length_tokens": 128}, **changes}
    report = preflight.run(
        recipe(base, **changes), base, prompts, traces=traces, benchmarks=held or {}, probe=probe
    )
    for each in report.checks:
        assert "\n" not in each.detail
        assert not each.detail.endswith(".")
        if each.level in (Level.WARNING, Level.ERROR):
            assert ";" in each.detail, each
    found = [each for each in report.checks if each.name == name]
    assert len(found) == 1, report.checks
    return found[0]


def other_tokenizer(base: Path, folder: Path, **changes: Any) -> Path:
    """The base with another tokenizer_config."""
    shutil.copytree(base, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_good_recipe_has_no_error(tiny_qwen: Path) -> None:
    held = {"held@1": [Problem("q", "Quite another question?", "1")]}
    report = preflight.run(
        recipe(tiny_qwen, training={"max_length_tokens": 128}), tiny_qwen, PROMPTS,
        benchmarks=held, probe=lambda *_, **__: (1000, 1e-6),
    )  # fmt: skip
    assert {each.level for each in report.checks} <= {Level.OK, Level.NOTE}
    written = json.loads(json.dumps(report.to_json()))
    assert written["errors"] == written["warnings"] == 0
    assert [piece["supervised"] for piece in written["example"]] == [False, True]
    assert written["example"][1]["text"].startswith("<think>\nFirst.")
    assert written["example"][1]["text"].endswith("<|im_end|>")


def test_padding_that_is_the_ending_token(tiny_qwen: Path, tmp_path: Path) -> None:
    base = other_tokenizer(tiny_qwen, tmp_path / "b", pad_token="<|im_end|>")
    found = check(base, "padding")
    assert found.level is Level.WARNING
    assert "is both padding and the ending token" in found.detail
    assert check(base, "padding", corpus={"padding_token": "<|user|>"}).level is Level.OK
    # What it warns of does not happen here: the ending token carries loss all the same.
    assert check(base, "ending token").level is Level.OK


def test_a_tokenizer_without_ending_token(tiny_qwen: Path, tmp_path: Path) -> None:
    base = other_tokenizer(tiny_qwen, tmp_path / "b", eos_token=None)
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    found = check(base, "base")
    assert found.level is Level.ERROR
    assert "no EOS token" in found.detail


def test_an_ending_token_that_no_example_has(tiny_qwen: Path) -> None:
    encoder = Encoder(tiny_qwen, recipe(tiny_qwen))
    good = encoder.encode(trace(GOOD))
    endless = corpus.Example("p", 0, good.input_ids[:-1], good.prompt_tokens)
    found = {c.name: c for c in checks_of_corpus([endless, good], encoder, recipe(tiny_qwen))}
    assert found["ending token"].level is Level.ERROR
    assert "1 of 2 examples end with <|im_end|>" in found["ending token"].detail
    with pytest.raises(InputError, match="preflight: ending token: 1 of 2"):
        require_passed(list(found.values()))


DROPS = (
    "{% for m in messages %}<|user|>{{ m.content.split('</think>')[-1] }}"
    "{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>TAIL{% endif %}"
)


def test_a_template_that_drops_the_thoughts(tiny_qwen: Path) -> None:
    plan = {"chat_template": DROPS.replace("TAIL", "")}
    found = check(tiny_qwen, "chat template", corpus=plan)
    assert found.level is Level.NOTE
    assert "leaves the thoughts out of an answer" in found.detail
    assert check(tiny_qwen, "thinking tags", corpus=plan).level is Level.OK


def test_a_template_that_closes_the_thoughts_before_the_response(tiny_qwen: Path) -> None:
    plan = {"chat_template": DROPS.replace("TAIL", "<think>\n\n</think>\n\n")}
    found = check(tiny_qwen, "thinking tags", corpus=plan)
    assert found.level is Level.ERROR
    assert "closes the thoughts (</think>) before the response begins" in found.detail


def test_traces_without_thoughts(tiny_qwen: Path) -> None:
    found = check(tiny_qwen, "thinking tags", traces=[trace("\\boxed{2}")])
    assert found.level is Level.ERROR
    assert "<think> is lost" in found.detail
    assert "in 1 of 1 examples" in found.detail
    some = check(tiny_qwen, "thinking tags", traces=[trace(GOOD), trace("no", sample=1)])
    assert some.level is Level.WARNING
    unclosed = check(tiny_qwen, "thinking tags", traces=[trace("<think>\nwell")])
    assert "</think> is lost" in unclosed.detail
    forced = Thinking(forced=True).model_dump()
    assert check(tiny_qwen, "thinking tags", thinking=forced).level is Level.OK


@pytest.mark.parametrize("kind", ["tags", "field"])
def test_thoughts_of_a_field_of_their_own_are_put_between_the_tags(
    kind: str, tiny_qwen: Path
) -> None:
    apart = trace("\\boxed{2}")
    apart = Trace(apart.problem, replace(apart.completion, reasoning="well"))
    thinking = Thinking(kind=kind).model_dump()
    encoder = Encoder(tiny_qwen, recipe(tiny_qwen, thinking=thinking))
    assert encoder.render(apart).response == GOOD
    assert check(tiny_qwen, "thinking tags", traces=[apart], thinking=thinking).level is Level.OK


def without_words(base: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The base with its tokenizer.json changed."""
    shutil.copytree(base, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def test_a_tokenizer_that_splits_the_tags(tiny_qwen: Path, tmp_path: Path) -> None:
    def split(content: dict[str, Any]) -> None:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["special"]]

    base = without_words(tiny_qwen, tmp_path / "b", split)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("added_tokens_decoder", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    found = check(base, "thinking tags")
    assert found.level is Level.WARNING
    assert "writes <think> as 7 tokens and </think> as 8 tokens" in found.detail


def test_a_tokenizer_that_loses_text(tmp_path: Path) -> None:
    def lower(content: dict[str, Any]) -> None:
        content["normalizer"] = {"type": "Lowercase"}

    base = without_words(make_tiny("llama", tmp_path / "a"), tmp_path / "b", lower)
    found = check(base, "round trip", traces=[trace("<think>\nA B\n</think>\\boxed{2}")])
    assert found.level is Level.ERROR
    assert "turns 'A B" in found.detail


def test_no_token_carries_loss(tiny_qwen: Path) -> None:
    found = check(tiny_qwen, "supervised share", traces=[trace(""), trace("", sample=1)])
    assert found.level is Level.ERROR
    assert "no token but the ending one carries loss" in found.detail
    some = check(tiny_qwen, "supervised share", traces=[trace(""), trace(GOOD, sample=1)])
    assert some.level is Level.WARNING
    assert "1 of 2 responses are empty" in some.detail
    known = trace("<think></think>2")
    example = Encoder(tiny_qwen, recipe(tiny_qwen)).encode(known)
    share = example.supervised_tokens / len(example.input_ids)
    assert f"({share:.1%})" in check(tiny_qwen, "supervised share", traces=[known]).detail


@pytest.mark.parametrize("policy", ["drop", "truncate"])
def test_examples_beyond_the_cut_off_are_counted(policy: str, tiny_qwen: Path) -> None:
    long = trace(f"<think>{'x' * 200}</think>", sample=1)
    plan = {"too_long": policy}
    found = check(tiny_qwen, "cut-off", traces=[trace(GOOD), long], corpus=plan)
    assert found.level is Level.WARNING
    what = "dropped" if policy == "drop" else "truncated"
    assert f"1 of 2 examples are longer than 128 tokens and are {what}" in found.detail
    assert check(tiny_qwen, "cut-off", traces=[long], corpus=plan).level is Level.ERROR
    chosen = recipe(tiny_qwen, corpus=plan, training={"max_length_tokens": 128})
    if policy == "drop":  # the corpus says the same
        with pytest.raises(CorpusError, match="none of 1 traces"):
            corpus.build(
                [long], encoder=Encoder(tiny_qwen, chosen), recipe=chosen, out=tiny_qwen / "no"
            )


def test_prompts_without_room_for_a_response(tiny_qwen: Path) -> None:
    long = Problem("b", "1+" * 100 + "1", "101")
    found = check(tiny_qwen, "prompt length", prompts=[*PROMPTS, long])
    assert found.level is Level.WARNING
    assert "1 of 7 prompts looked at leave no room" in found.detail
    assert check(tiny_qwen, "prompt length", prompts=[long]).level is Level.ERROR


def test_a_context_that_is_too_short(tiny_qwen: Path) -> None:
    """The tiny base has 256 positions."""
    found = check(tiny_qwen, "context", training={"max_length_tokens": 1000})
    assert found.level is Level.ERROR
    assert "may have 1000 tokens, but the base has 256 positions" in found.detail
    assert "to 256" in found.detail
    assert "a factor of 4 or more" in found.detail
    rope = {"factor": 4.0}
    stretched = {"max_length_tokens": 1000, "rope": rope}
    assert check(tiny_qwen, "context", training=stretched).level is Level.OK
    assert check(tiny_qwen, "context", training={"max_length_tokens": 256}).level is Level.OK
    # Once there are traces, they count, and not what might have been.
    drawn = check(tiny_qwen, "context", traces=[trace(GOOD)], training={"max_length_tokens": 1000})
    assert drawn.level is Level.OK


def test_a_benchmark_that_fills_the_context_is_refused_before_the_training(
    tiny_qwen: Path,
) -> None:
    long = Problem("long", "How much is it? " * 100, "1")
    held = {"short@1": list(PROMPTS), "long@2": [PROMPTS[0], long], "mixed@3": [long]}
    measured: dict[str, Any] = {"benchmarks": ["short"], "roles": ["student", "base"]}
    found = check(tiny_qwen, "benchmark length", held=held, evaluation=measured)
    assert found.level is Level.OK
    assert f"all of {len(PROMPTS)} benchmark problems" in found.detail
    measured = {**measured, "benchmarks": ["short", "long"]}
    found = check(tiny_qwen, "benchmark length", held=held, evaluation=measured)
    assert found.level is Level.ERROR
    assert f"1 of {len(PROMPTS) + 2} benchmark problems leave the student no room" in found.detail
    assert "in 256 positions" in found.detail
    # The student's positions are stretched with it, the base's are not.
    stretched = {"max_length_tokens": 128, "rope": {"factor": 8.0}}
    found = check(tiny_qwen, "benchmark length", held=held, evaluation=measured, training=stretched)
    assert "leave the base no room" in found.detail
    alone = {**measured, "roles": ["student"]}
    found = check(tiny_qwen, "benchmark length", held=held, evaluation=alone, training=stretched)
    assert found.level is Level.OK


def test_a_tokenizer_that_has_more_tokens_than_the_model(tiny_qwen: Path, tmp_path: Path) -> None:
    assert check(tiny_qwen, "vocabulary").level is Level.OK
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "b"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 3}))
    found = check(base, "vocabulary")
    assert found.level is Level.ERROR
    assert "but the model knows only 3" in found.detail


def test_contamination_is_told(tiny_qwen: Path) -> None:
    held = {"held@1": [Problem("q7", PROMPTS[2].problem, PROMPTS[2].answer)]}
    found = check(tiny_qwen, "contamination", held=held)
    assert found.level is Level.WARNING
    assert f"1 of 6 prompts stand in a benchmark (the first: {PROMPTS[2].id} is q7" in found.detail
    off = check(tiny_qwen, "contamination", held=held, decontaminate=False)
    assert "every score of the student will say so" in off.detail
    only = check(tiny_qwen, "contamination", held=held, prompts=[PROMPTS[2]])
    assert only.level is Level.ERROR
    clean = check(tiny_qwen, "contamination", held=held, prompts=PROMPTS[3:])
    assert clean.level is Level.OK
    assert check(tiny_qwen, "contamination").level is Level.WARNING  # nothing to compare with


def test_packing_that_leaks(tiny_qwen: Path) -> None:
    def leaks(config: Any, *, longest: int, packed: bool) -> tuple[int, float]:
        return 1, 0.2 if packed else 1e-6

    found = check(tiny_qwen, "packing", probe=leaks)
    assert found.level is Level.ERROR
    assert "packed sequences see each other" in found.detail
    assert "set training.packing to false" in found.detail
    off = {"packing": False, "max_length_tokens": 128}
    assert check(tiny_qwen, "packing", probe=leaks, training=off).level is Level.NOTE


def test_a_window_is_told_of_where_the_longest_example_passes_it(
    tiny_qwen: Path, tmp_path: Path
) -> None:
    """Also without packing: the training's attention knows no window, whatever lies in a row."""
    from distiller.probe import probe

    base = Path(shutil.copytree(tiny_qwen, tmp_path / "b"))
    config = json.loads((base / "config.json").read_text())
    del config["layer_types"]
    config |= {"model_type": "mistral", "sliding_window": 100}
    (base / "config.json").write_text(json.dumps(config))
    for packing in (True, False):
        for limit, level in ((101, Level.ERROR), (100, Level.NOTE if not packing else Level.OK)):
            plan = {"packing": packing, "max_length_tokens": limit}
            found = check(base, "packing", probe=probe, training=plan)
            assert found.level is level, (plan, found)


def test_no_prompts_and_no_template(tiny_qwen: Path, tmp_path: Path) -> None:
    assert check(tiny_qwen, "prompts", prompts=[]).level is Level.ERROR
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "b"))
    (base / "chat_template.jinja").unlink()
    found = check(base, "base")
    assert "no chat template and the recipe names none; set corpus.chat_template" in found.detail
    plan = {"benchmarks": ["arithmetic"]}
    own = {"chat_template": DROPS.replace("TAIL", "")}
    asked = check(base, "evaluation prompt", corpus=own, evaluation=plan)
    assert asked.level is Level.ERROR
    assert "the base has no chat template to be asked with" in asked.detail
    insists = "You are a helpful assistant of nobody. " + own["chat_template"]
    (base / "chat_template.jinja").write_text(insists)
    asked = check(base, "evaluation prompt", corpus=own, evaluation=plan)
    assert asked.level is Level.ERROR
    assert "the base cannot be asked (chat template: it writes a system prompt" in asked.detail
    student = {**plan, "roles": ["student"]}
    assert check(base, "evaluation prompt", corpus=own, evaluation=student).level is Level.OK
    (base / "chat_template.jinja").unlink()
    plain = check(base, "evaluation prompt", corpus={"chat_template": "none"}, evaluation=plan)
    assert 'set evaluation.protocol.chat_template to "none"' in plain.detail


def test_a_student_that_is_asked_otherwise_than_taught(tiny_qwen: Path) -> None:
    plan = {"benchmarks": ["arithmetic"]}
    assert check(tiny_qwen, "evaluation prompt", evaluation=plan).level is Level.OK
    found = check(
        tiny_qwen, "evaluation prompt", evaluation=plan,
        thinking=Thinking(forced=True).model_dump(),
    )  # fmt: skip
    assert found.level is Level.WARNING
    assert "'<think>" in found.detail
    student = {**plan, "roles": ["student"]}
    broken = {**student, "protocol": {"chat_template": "{{ raise_exception('no') }}"}}
    assert check(tiny_qwen, "chat template", evaluation=broken).level is Level.ERROR


def test_the_mix_is_looked_at(tiny_qwen: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"prompt": "hello", "response": "hi"}\n')
    plan = {"general": [{"file": str(path), "name": "talk"}]}
    assert "3 traces : 1 talk" in check(tiny_qwen, "mix", corpus=plan).detail
    held = {"held@1": [Problem("q7", "hello", "1")]}
    found = check(tiny_qwen, "contamination", corpus=plan, held=held)
    assert "1 of 7 prompts stand in a benchmark (the first: talk:1 is q7" in found.detail
    path.write_text(json.dumps({"prompt": "hello", "response": "hi" * 100}) + "\n")
    assert check(tiny_qwen, "mix", corpus=plan).level is Level.ERROR
    path.write_text('{"prompt": "hello"}\n')
    assert "line 1 is no chat" in check(tiny_qwen, "corpus.general", corpus=plan).detail
    path.write_text("")
    assert "'talk' has no chat" in check(tiny_qwen, "corpus.general", corpus=plan).detail


def test_a_built_corpus_is_looked_at_whole(tiny_qwen: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_qwen, training={"max_length_tokens": 40}, corpus={"too_long": "truncate"})
    traces = [trace(GOOD, sample=n) for n in range(3)] + [trace(f"<think>{'x' * 60}", sample=9)]
    corpus.build(traces, encoder=Encoder(tiny_qwen, chosen), recipe=chosen, out=tmp_path / "c")
    examples, manifest = corpus.read(tmp_path / "c")
    report: Report = preflight.run(chosen, tiny_qwen, PROMPTS, corpus=examples)
    found = {each.name: each for each in report.checks}
    assert "1 of 4 examples are longer than 40 tokens and are truncated" in found["cut-off"].detail
    assert found["ending token"].level is Level.OK
    assert report.figures["supervised_share"] == manifest["supervised_share"]
    assert report.figures["longest_tokens"] == 40


def test_long_examples_are_shortened_where_they_are_shown(tiny_qwen: Path) -> None:
    encoder = Encoder(tiny_qwen, recipe(tiny_qwen))
    masked, supervised = preflight.mask_pieces(encoder.encode(trace("y" * 9000)), encoder)
    assert masked["text"].startswith("<|user|>1+1")
    assert len(supervised["text"]) < 3100
    assert "characters…]" in supervised["text"]
