"""A recipe as YAML and as a form: nothing is lost either way, and hostile documents are refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distiller import filters
from distiller.recipe import DEMO_PROMPTS, Recipe, demo_recipe
from tests.webapp.samples import arithmetic, make_benchmark, make_checkpoint
from webapp.benchmarks.models import PromptSet
from webapp.core.errors import UserError
from webapp.runs import services
from webapp.runs.launching import filter_fields, mapping, presets, recipe_yaml
from webapp.runs.launching.distil import DistillationForm
from webapp.runs.launching.filling import fill
from webapp.runs.launching.recipe_yaml import YamlError, read_draft

MINIMAL = "teacher: t\nbase: b\nstudent: s\nprompts:\n  set: p\n"

text = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool)
)
share = st.floats(0, 0.5).map(lambda value: round(value, 6))
rates = st.floats(1e-9, 1).map(lambda value: float(f"{value:.6g}"))


@st.composite
def filter_choices(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(st.sampled_from(filter_fields.offered()), unique=True))
    chosen = []
    for name in names:
        parameters: dict[str, Any] = {}
        if name == "answer":
            parameters = draw(st.sampled_from([
                {}, {"grader": "integer"}, {"policy": {"percent": False}},
                {"policy": {"several_boxes": "all"}, "unchecked": "keep"}, {"grader": "math"},
            ]))  # fmt: skip
        elif name == "select":
            parameters = {"per_prompt": draw(st.sampled_from([None, 1, 4])), "choose": "random"}
        elif name == "length_bounds":
            parameters = draw(st.sampled_from([{}, {"max": 90, "unit": "words"}, {"min": 3}]))
        elif name == "duplicates":
            parameters = draw(st.sampled_from([{}, {"threshold": 0.9, "near": False}]))
        chosen.append({"name": name, "parameters": parameters})
    return chosen


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe that the webapp can follow, with fields that the form has and has not."""
    maybe = lambda strategy: st.none() | strategy  # noqa: E731
    return Recipe.model_validate({
        "name": draw(text), "teacher": "teacher", "base": "base",
        "student": draw(st.sampled_from(["s1", "s2"])),
        "prompts": {"set": "p", "limit": draw(maybe(st.integers(1, 9)))},
        "prompt": draw(text) + " {problem}\n" + draw(text),
        "thinking": {"kind": draw(st.sampled_from(["tags", "none", "field"])),
                     "open": draw(st.sampled_from(["<think>", "<t>"])),
                     "forced": draw(st.booleans())},
        "generation": {
            "engine": draw(st.sampled_from(["transformers", "vllm"])),
            "samples": draw(st.integers(1, 256)), "stop_after": draw(maybe(st.integers(1, 9))),
            "mode": draw(st.sampled_from(["plain", "reflection", "few_shot"])),
            "seed": draw(st.integers(-5, 2**40)), "shard_prompts": draw(st.integers(1, 999)),
            "sampling": {"temperature": draw(share), "top_p": draw(rates),
                         "max_tokens": draw(st.integers(1, 99999)),
                         "stop": draw(st.lists(text, max_size=2))},
            "price": draw(maybe(st.fixed_dictionaries({
                "input_per_million": share, "output_per_million": share,
                "currency": st.sampled_from(["USD", "EUR"])}))),
        },
        "filters": draw(filter_choices()),
        "decontaminate": draw(st.booleans()),
        "corpus": {"traces_weight": draw(st.floats(0.5, 9).map(lambda v: round(v, 3))),
                   "examples": draw(maybe(st.integers(1, 99))),
                   "too_long": draw(st.sampled_from(["drop", "truncate"])),
                   "chat_template": draw(maybe(text)), "padding_token": draw(maybe(text))},
        "training": {
            "epochs": draw(st.floats(0.01, 99).map(lambda v: round(v, 3))),
            "learning_rate": draw(rates), "batch_size": draw(st.integers(1, 999)),
            "max_length_tokens": draw(st.integers(8, 99999)), "weight_decay": draw(share),
            "lora": draw(maybe(st.fixed_dictionaries({
                "rank": st.integers(1, 99), "alpha": st.integers(1, 99), "dropout": share}))),
            "rope": draw(maybe(st.fixed_dictionaries({
                "kind": st.sampled_from(["yarn", "linear"]), "factor": st.integers(2, 9),
                "original_tokens": maybe(st.integers(1, 99))}))),
            "held_out_share": draw(share), "packing": draw(st.booleans()),
        },
        "evaluation": {
            "benchmarks": draw(st.sampled_from([[], ["arithmetic"]])),
            "roles": draw(st.sampled_from([["student"], ["student", "teacher"]])),
            "engine": draw(st.sampled_from([None, "vllm"])),
            "protocol": {"name": draw(st.sampled_from(["r1", "quick", "greedy", "mine"])),
                         "samples": draw(maybe(st.integers(1, 99))),
                         "seed": draw(st.integers(0, 9)),
                         "sampling": {"temperature": draw(share)}},
        },
    })  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(recipe=recipes())
def test_a_recipe_is_the_same_after_yaml_and_after_the_forms_values(recipe: Recipe) -> None:
    written = recipe_yaml.recipe_text(recipe)
    assert read_draft(written).recipe == recipe
    values = mapping.values_of(recipe)
    values["more"] = recipe_yaml.read_fields(values["more"])
    assert mapping.twice_given(values["more"], general=False) == []
    again = Recipe.model_validate(mapping.fields_of(values))
    assert again == mapping.portable(recipe)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("{name: guessable}", "guessable looks at guesses"),
        ("{name: answer, parameters: {unchecked: judge}}", "answer looks at verdicts"),
    ],
)
def test_a_filter_that_no_run_can_feed_is_refused_with_what_to_do(
    installed: None, user: Any, chosen: str, said: str
) -> None:
    text = f"teacher: teacher\nbase: base\nstudent: s\nprompts: {{set: p}}\nfilters: [{chosen}]\n"
    with pytest.raises(recipe_yaml.YamlError, match=f"filters.0: {said}.*on the command line"):
        read_draft(text)
    recipe = Recipe.model_validate(recipe_yaml.read_fields(text))
    with pytest.raises(UserError, match=said) as refused:
        services.launch_distillation(owner=user, recipe=recipe)
    assert refused.value.field == "filters"
    form = DistillationForm(user)
    offered = [row.name for row in form.steps()[1].filters]
    assert set(filters.names()) - set(offered) == {"guessable"}
    kinds = form.fields["filter-answer-unchecked"].choices  # type: ignore[attr-defined]
    assert [value for value, _ in kinds] == ["drop", "keep"]
    assert not [name for name in form.fields if name.startswith("filter-guessable")]


def posted(form: DistillationForm) -> dict[str, Any]:
    """What a browser sends of a form as it is shown."""
    values = {}
    for bound in form:
        value = bound.value()
        if value is not None and value is not False and value != "":
            values[bound.name] = value
    return values


@pytest.fixture
def installed(user: Any) -> None:
    make_checkpoint(user, "teacher", context_tokens=4096)
    make_checkpoint(user, "base", context_tokens=8192)
    make_benchmark(arithmetic(3))
    PromptSet.objects.create(
        name="p", content_hash="0" * 64, path="prompts/p.jsonl", prompt_count=DEMO_PROMPTS
    )


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(recipe=recipes())
def test_form_to_yaml_to_form_is_the_identity(installed: None, recipe: Recipe, user: Any) -> None:
    first = DistillationForm(
        user, posted(DistillationForm(user, initial=fill(_draft(recipe), user).initial))
    )
    assert first.is_valid(), first.errors
    assert first.cleaned_data["recipe"] == mapping.portable(recipe)
    filled = fill(read_draft(recipe_yaml.recipe_text(first.cleaned_data["recipe"])), user)
    assert filled.notes == {}
    second = DistillationForm(user, posted(DistillationForm(user, initial=filled.initial)))
    assert second.is_valid(), second.errors
    assert posted(second) == posted(first)
    assert second.cleaned_data["recipe"] == first.cleaned_data["recipe"]


def _draft(recipe: Recipe) -> recipe_yaml.Draft:
    return recipe_yaml.Draft(recipe, recipe.model_dump(mode="json"))


# --- presets


@pytest.mark.parametrize("name", presets.ORDER)
def test_a_preset_is_a_recipe_once_it_has_names(name: str) -> None:
    given = presets.all_of_them()[name].draft.given
    names = {"teacher": "t", "base": "b", "student": "s", "prompts": {"set": "p"}}
    recipe = Recipe.model_validate(recipe_yaml.merged(given, names))
    filters.create(recipe.filters)
    # What it says of filters is no more than what it means.
    assert filter_fields.normal(recipe.filters) == recipe.filters


def test_the_demos_preset_is_the_demonstrations_recipe() -> None:
    names = {"teacher": "t", "base": "b", "student": "s", "prompts": "p"}
    demo = demo_recipe(**names)
    plan = demo.evaluation.model_copy(update={"benchmarks": ()})
    wanted = demo.model_copy(update={"name": "distillation", "evaluation": plan})
    draft = presets.all_of_them()["demo"].draft.recipe
    found = Recipe.model_validate(draft.model_dump() | names | {"prompts": {"set": "p"}})
    assert found == wanted


def test_the_papers_preset_follows_its_figures() -> None:
    recipe = presets.all_of_them()["r1-distill"].draft.recipe
    assert recipe.generation.samples > 1
    assert 0.6 <= recipe.generation.sampling.temperature <= 1.0
    assert 2 <= recipe.training.epochs <= 3
    on = {each.name for each in recipe.filters}
    assert {"mixed_language", "paragraphs", "code", "answer", "format"} <= on
    assert recipe.corpus.traces_weight == 3
    assert recipe.decontaminate
    assert recipe.evaluation.protocol.name == "r1"


# --- what a stranger pastes


def billion_laughs() -> str:
    rows = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("document", "line", "word"),
    [
        (billion_laughs(), 1, "aliases"),
        ("teacher: t\nbase: !!python/object/apply:os.system ['true']\n", 2, "tags"),
        ("a: !!str b", 1, "tags"),
        ("[" * 200 + "]" * 200, 1, "nested"),
        ("{a: " * 60 + "1" + "}" * 60, 1, "nested"),
        ("x" * 200_001, None, "longer"),
        ("[" + "a: b," * 39_000 + "]", 1, "too many"),
        ("- a\n- b\n", 1, "name: value"),
        ("just words", 1, "name: value"),
        ("", None, "name: value"),
        ("teacher: t\nteacher: u\n", 2, "second time"),
        ("teacher: [\n", None, "no YAML"),
        ("a: b: c\n", 1, "no YAML"),
        ("--- {}\n--- {}\n", 2, "no YAML"),
        (MINIMAL + "training:\n  epochs: .inf\n", 7, "finite"),
        (MINIMAL + "training:\n  epochs: .nan\n", 7, "finite"),
        (MINIMAL + 'prompt: "\\0 {problem}"\n', 6, "NUL"),
        (MINIMAL + "name: 2024-01-01\n", 6, "quotation marks"),
        (MINIMAL + "name: 2024-13-99\n", None, "cannot be read"),
        (MINIMAL + "on: 1\n", 6, "word"),
        (MINIMAL + "? [a]\n: 1\n", 6, "word"),
        (MINIMAL + "training:\n  epochs: 1\n  epoch: 2\n", 8, "training.epoch"),
        (MINIMAL + "training:\n  batch_size: 1\n  epochs: -2\n", 8, "training.epochs"),
        (MINIMAL + "filters:\n  - name: loops\n  - name: nonsense\n", 8, "nonsense"),
        (MINIMAL + "filters:\n  - name: loops\n    parameters: {min_copies: 1}\n", 7, "min_copies"),
        (MINIMAL + "filters:\n  - {name: loops}\n  - {name: loops}\n", None, "twice"),
        (MINIMAL + "prompt: none\n", 6, "{problem}"),
        ("prompts: 3\n", 1, "prompts"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_line(document: str, line: int | None, word: str) -> None:
    with pytest.raises(YamlError) as raised:
        read_draft(document)
    first = raised.value.mistakes[0]
    assert word in str(first)
    if line is not None:
        assert first.line == line
    assert str(first).endswith(".")


def test_all_mistakes_are_told_at_once_in_order() -> None:
    document = MINIMAL + "training:\n  epochs: x\ngeneration:\n  samples: 0\nnonsense: 1\n"
    with pytest.raises(YamlError) as raised:
        read_draft(document)
    assert [mistake.line for mistake in raised.value.mistakes] == [7, 9, 10]


@settings(max_examples=200, deadline=None)
@given(document=st.text(st.sampled_from("ab:-[]{}&*!|>%@`'\"#,?\n \t0.\\<~="), max_size=60))
def test_any_text_is_read_or_refused_with_a_sentence(document: str) -> None:
    with suppress(YamlError):  # any other exception would reach the page
        assert isinstance(recipe_yaml.read_fields(document), dict)
