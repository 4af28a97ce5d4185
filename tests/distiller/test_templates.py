"""Training prompts equal the evaluator's, token for token; endings; what a student is given."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distiller import templates
from distiller.corpus import Encoder
from distiller.errors import InputError
from distiller.mixing import Chat
from evaluator.engines.prompting import Prompter
from evaluator.protocol import Protocol, Thinking
from tests.conftest import SHARED_DATA
from tests.distiller.samples import make_tiny, recipe, trace

# ChatML that drops the thoughts of answers before the last question, as Qwen3's template does.
CHATML_DROPS = (
    "{%- if messages[0].role == 'system' -%}"
    "{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' -}}{%- endif -%}"
    "{%- for message in messages -%}{%- if message.role == 'user' -%}"
    "{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' -}}"
    "{%- elif message.role == 'assistant' -%}"
    "{{- '<|im_start|>assistant\n' + message.content.split('</think>')[-1].lstrip('\n')"
    " + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
LLAMA3_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


def llama3_like(folder: Path) -> Path:
    """A byte-level tokenizer with Llama 3's special tokens, BOS and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    words = [*LLAMA3_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in LLAMA3_TOKENS])
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=LLAMA3_TOKENS[0], eos_token=LLAMA3_TOKENS[1],
        chat_template=LLAMA3,
    ).save_pretrained(folder)  # fmt: skip
    LlamaConfig(vocab_size=len(words), eos_token_id=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders with config and tokenizer: the real ones, and one of Llama 3's kind."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name in made:
            return made[name]
        path = tmp_path_factory.mktemp("bases") / name
        path.mkdir()
        if name == "llama3-like":
            llama3_like(path)
        else:
            source = SHARED_DATA / "tokenizers" / name
            packed = (source / "tokenizer.json.gz").read_bytes()
            (path / "tokenizer.json").write_bytes(gzip.decompress(packed))
            shutil.copyfile(source / "tokenizer_config.json", path / "tokenizer_config.json")
            config = {"model_type": "qwen2", "transformers_version": "5.0.0"}
            (path / "config.json").write_text(json.dumps(config))
        return made.setdefault(name, path)

    return folder


REAL = pytest.mark.shared_data
CASES = [
    pytest.param("qwen2.5", None, "<|im_end|>", marks=REAL),
    pytest.param("qwen2.5", CHATML_DROPS, "<|im_end|>", marks=REAL),
    pytest.param("qwen2.5", "none", "<|im_end|>", marks=REAL),
    pytest.param("deepseek-r1-distill-qwen", None, "<｜end▁of▁sentence｜>", marks=REAL),
    pytest.param("llama3-like", None, "<|eot_id|>"),
]


@pytest.mark.parametrize(("name", "template", "end"), CASES)
@pytest.mark.parametrize("forced", [False, True])
def test_a_training_prompt_is_the_evaluators_token_for_token(
    name: str, template: str | None, end: str, forced: bool, bases: Any, tmp_path: Path
) -> None:
    base = bases(name)
    thinking = Thinking(forced=forced)
    chosen = recipe(
        base, thinking=thinking.model_dump(), corpus={"chat_template": template},
        prompt="Solve: {problem}",
    )  # fmt: skip
    encoder = Encoder(base, chosen)
    assert encoder.end_token == end
    student = tmp_path / "student"
    manifest = {
        "chat_template": encoder.template, "end_token": encoder.end_token,
        "pad_token": encoder.pad_token,
    }  # fmt: skip
    templates.save_student_tokenizer(base, student, manifest)
    shutil.copyfile(base / "config.json", student / "config.json")
    evaluator = Prompter(student)
    assert encoder.end_id in evaluator.end_ids
    named = "none" if template == "none" else None
    protocol = Protocol(thinking=thinking, chat_template=named)

    @settings(max_examples=30, deadline=None)
    @given(TEXT.filter(str.strip), TEXT, TEXT)
    def holds(problem: str, thoughts: str, answer: str) -> None:
        response = f"<think>\n{thoughts}\n</think>\n\n{answer}"
        if any(token in response for token in (end, "<|", "<｜")):
            return
        example = encoder.encode(trace(response, problem=problem))
        asked = evaluator.render(problem, prompt="Solve: {problem}", protocol=protocol)
        ids = evaluator.tokenizer(asked, add_special_tokens=False)["input_ids"]
        assert list(example.input_ids[: example.prompt_tokens]) == ids
        # Nothing of the response is lost, and its tokens are those of the response alone.
        supervised = example.input_ids[example.prompt_tokens :]
        assert supervised[-1] == encoder.end_id
        opened = asked.endswith("<think>\n")
        rest = response.removeprefix("<think>\n") if opened else response
        assert encoder.decode(supervised[:-1]) == rest
        assert encoder.ids(rest) == list(supervised[:-1])
        assert encoder.decode(example.input_ids).endswith(f"{response}{end}")

    holds()


@pytest.mark.shared_data
def test_templates_that_drop_thoughts_are_known(bases: Any) -> None:
    for name, template, drops in (
        ("deepseek-r1-distill-qwen", None, True), ("qwen2.5", None, False),
        ("qwen2.5", CHATML_DROPS, True),
    ):  # fmt: skip
        encoder = Encoder(bases(name), recipe(bases(name), corpus={"chat_template": template}))
        assert encoder.template is not None
        found = templates.drops_thoughts(encoder.tokenizer, encoder.template, "<think>", "</think>")
        assert found == drops


@pytest.mark.shared_data
def test_old_thoughts_of_a_chat_are_dropped_as_at_inference_and_the_last_ones_kept(
    bases: Any,
) -> None:
    base = bases("deepseek-r1-distill-qwen")
    encoder = Encoder(base, recipe(base))
    turns = (
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<think>\nold\n</think>\n\nfirst"},
        {"role": "user", "content": "two"},
    )
    rendered = encoder.render_chat(Chat("g:1", "Be kind.", turns, "<think>\nnew\n</think>\n\nlast"))
    wanted = encoder.tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, *turns], add_generation_prompt=True,
        tokenize=False,
    )  # fmt: skip
    assert rendered.prompt == wanted
    assert "old" not in rendered.prompt
    assert rendered.response == "new\n</think>\n\nlast"


def test_a_base_without_template_gets_the_recipes_and_keeps_it(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"no chat template.*set corpus\.chat_template"):
        Encoder(base, recipe(base))
    own = "{{ messages[-1].content }}={% if not add_generation_prompt %}<|user|>{% endif %}"
    encoder = Encoder(base, recipe(base, corpus={"chat_template": f"{own}"}))
    assert encoder.prompt("1+1") == "1+1="
    plain = Encoder(base, recipe(base, corpus={"chat_template": "none"}))
    assert plain.prompt("1+1") == "1+1"
    assert plain.end_token == "<|im_end|>"


OWN_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|user|>You are a helpful assistant made by nobody."
    "{% endif %}{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_a_recipes_template_teaches_what_the_student_is_asked_with(
    tiny_qwen: Path, tmp_path: Path
) -> None:
    """Where a template writes a system prompt of its own, asking tells it not to; so does teaching.

    Before, the student was taught with that prompt, asked without it, and preflight saw nothing.
    """
    chosen = recipe(tiny_qwen, corpus={"chat_template": OWN_SYSTEM})
    encoder = Encoder(tiny_qwen, chosen)
    manifest = {
        "chat_template": encoder.template, "end_token": encoder.end_token,
        "pad_token": encoder.pad_token,
    }  # fmt: skip
    templates.save_student_tokenizer(tiny_qwen, tmp_path, manifest)
    shutil.copyfile(tiny_qwen / "config.json", tmp_path / "config.json")
    student = Prompter(tmp_path)
    asked = student.render("1+1", prompt="{problem}", protocol=Protocol())
    assert encoder.prompt("1+1") == asked
    assert "nobody" not in asked
    chat = Chat("g:1", None, ({"role": "user", "content": "1+1"},), "2")
    assert encoder.render_chat(chat).prompt == asked


def test_a_recipes_template_that_insists_on_a_system_prompt_is_refused(tiny_qwen: Path) -> None:
    """As a checkpoint's own is when it is asked: the training would have been for nothing."""
    insists = OWN_SYSTEM.replace("messages[0].role != 'system'", "true")
    encoder = Encoder(tiny_qwen, recipe(tiny_qwen, corpus={"chat_template": insists}))
    with pytest.raises(InputError, match=r"system prompt of its own .*corpus\.chat_template"):
        encoder.prompt("1+1")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ raise_exception('no') }}", "does not render"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "answer out"),
    ],
)
def test_a_template_that_cannot_write_an_answer_is_refused(
    template: str, sentence: str, tiny_qwen: Path
) -> None:
    with pytest.raises(InputError, match=f"{sentence}.*corpus.chat_template"):
        Encoder(tiny_qwen, recipe(tiny_qwen, corpus={"chat_template": template}))


def test_the_padding_token_must_be_known(tiny_qwen: Path) -> None:
    with pytest.raises(InputError, match=r"corpus\.padding_token: '<none>' is no token"):
        Encoder(tiny_qwen, recipe(tiny_qwen, corpus={"padding_token": "<none>"}))
    other = Encoder(tiny_qwen, recipe(tiny_qwen, corpus={"padding_token": "<|user|>"}))
    assert other.pad_id == other.ids("<|user|>")[0]


def test_the_students_configs_stop_at_the_end_of_a_turn(tiny_qwen: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_qwen)
    model.generation_config.eos_token_id = [7, 1]
    templates.set_endings(model, {"end_token_id": 3})
    assert model.config.eos_token_id == 3
    assert model.generation_config.eos_token_id == [3, 7, 1]


@pytest.mark.parametrize(
    ("settings_of_base", "kept"),
    [
        # Llama 2's first ones: sampling that is switched off, and yet described.
        ({"do_sample": False, "temperature": 0.9, "top_p": 0.6, "pad_token_id": 0},
         {"pad_token_id": 0}),
        ({"pad_token_id": -1, "bos_token_id": 4}, {"bos_token_id": 4}),
        # Qwen2.5's base models': answers of 2,048 tokens at most, by any server that reads this.
        ({"do_sample": False, "max_new_tokens": 2048}, {"do_sample": False}),
        ({"do_sample": True, "temperature": 0.7, "max_length": 4096},
         {"do_sample": True, "temperature": 0.7}),
    ],
)  # fmt: skip
def test_generation_settings_can_be_saved_and_cut_no_thoughts_off(
    settings_of_base: dict[str, Any], kept: dict[str, Any], tiny_qwen: Path, tmp_path: Path
) -> None:
    """What a base says of its answers neither ends a training that is done, nor its thoughts."""
    from transformers import AutoModelForCausalLM

    base = Path(shutil.copytree(tiny_qwen, tmp_path / "base"))
    path = base / "generation_config.json"
    path.write_text(json.dumps(settings_of_base | {"eos_token_id": 7}))
    model = AutoModelForCausalLM.from_pretrained(base)
    templates.set_endings(model, {"end_token_id": 3})
    model.save_pretrained(tmp_path / "student")
    saved = json.loads((tmp_path / "student" / path.name).read_text())
    del saved["transformers_version"]
    assert saved == {**kept, "eos_token_id": [3, 7]}


def test_a_student_of_a_base_without_template_is_asked_as_it_was_taught(tmp_path: Path) -> None:
    """End to end: the recipe's template, another ending than the base's EOS, a trained student."""
    from distiller import corpus, sft
    from distiller.recipe import Training

    base = make_tiny("qwen2", tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    own = (
        "{% for m in messages %}<|user|>{{ m.content }}<|assistant|>{% endfor %}"
        "{% if add_generation_prompt %}<|user|>{% endif %}"
    )
    chosen = recipe(base, corpus={"chat_template": own}, training={"max_length_tokens": 99})
    encoder = Encoder(base, chosen)
    assert encoder.end_token == "<|assistant|>"
    corpus.build([trace("2")], encoder=encoder, recipe=chosen, out=tmp_path / "corpus")
    trained = sft.train(
        tmp_path / "corpus", base, Training(epochs=1, max_length_tokens=99), tmp_path / "student",
        resume=tmp_path / "resume",
    )  # fmt: skip
    student = Prompter(trained.checkpoint)
    (example,) = corpus.read(tmp_path / "corpus")[0]
    asked = student.render("1+1", prompt="{problem}", protocol=Protocol())
    assert student.tokenizer(asked)["input_ids"] == list(example.input_ids[: example.prompt_tokens])
    assert example.input_ids[-1] in student.end_ids
    assert student.config.eos_token_id == example.input_ids[-1]
