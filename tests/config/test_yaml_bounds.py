"""A config that is made to be large is refused in one line, before anything is built from it; names
that YAML reads as something else say how to write them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tossctr.config.messages import OTHER_NAMES
from tossctr.config.overrides import Override
from tossctr.config.yaml_file import MAX_BYTES, parse_value, read_mapping
from tossctr.errors import UserError
from tossctr.families.experiment import load_dataset, load_experiment

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("small: " + "[" * 100_000, "line 1: nested more than 50 deep"),
        ("small: " + "{a: " * 100_000, "line 1: nested more than 50 deep"),
        ("small: " + "- " * 10_000 + "x", "line 1: "),
        ("".join(f"{' ' * i}k:\n" for i in range(2_000)), "nested more than 50 deep"),
        (LAUGHS, "more than 100,000 values"),
        (LAUGHS + "small: {unknown: *a11}", "more than 100,000 values"),
        ("small: {epochs: " + "9" * 5_000 + "}", "line 1: a number of 5,000 characters"),
        ("small: {epochs: 0x" + "f" * 5_000 + "}", "line 1: a number of 5,002 characters"),
        ("small: {learning_rate: 1." + "0" * 5_000 + "}", "a number of 5,002 characters"),
        ("small: &a [*a]", "line 1: *a contains itself"),
        ("small: &a {<<: *a}", "*a contains itself"),
        ("#" * (MAX_BYTES + 1), "is larger than 2,097,152 bytes"),
    ],
)
def test_a_bomb_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "model_config.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_mapping(file)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_bomb_in_set_is_one_line() -> None:
    with pytest.raises(UserError, match="nested more than 50 deep"):
        Override.parse("metrics=" + "[" * 50_000)
    with pytest.raises(UserError, match="a number of 5,000 characters"):
        Override.parse("epochs=" + "9" * 5_000)


def test_a_device_or_a_pipe_is_no_config(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(UserError, match="neither a file nor a folder"):
            read_mapping(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_mapping(tmp_path)


def test_aliases_and_merges_of_a_real_size_are_read() -> None:
    names = ", ".join(f"feature_{i}" for i in range(5_000))
    text = f"base: &b {{names: &n [{names}]}}\n" + "".join(
        f"e{i}: {{<<: *b, more: *n}}\n" for i in range(5)
    )
    found = parse_value(text, "text")
    assert all(len(found[f"e{i}"]["names"]) == 5_000 for i in range(5))


def test_keys_are_names_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("on: {x: 1}\n14: {yes: 2}\n2024-01-01: {}\nnull: {}\n")
    assert read_mapping(file) == {"on": {"x": 1}, "14": {"yes": 2}, "2024-01-01": {}, "null": {}}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("14", 'must be text (found 14); put it in quotes: "14"'),
        ("2024-01-01", "must be text (found '2024-01-01'); put it in quotes: \"2024-01-01\""),
        ("on", "must be text (found True); put it in quotes: unquoted yes, no, on, off"),
        ("1.5", 'must be text (found 1.5); put it in quotes: "1.5"'),
    ],
)
def test_a_name_that_yaml_does_not_read_as_text_asks_for_quotes(
    config_dir: Path, edit: Callable[[str, str, str], None], name: str, message: str
) -> None:
    edit("dataset_config.yaml", "name: [city, item]", f"name: [city, item, {name}]")
    with pytest.raises(UserError) as caught:
        load_dataset(config_dir, "shop")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("lr", "learning_rate"), ("bs", "batch_size"), ("num_epochs", "epochs"),
     ("LR", "learning_rate"), ("random_state", "seed"), ("emb_dim", "embedding_dim"),
     ("max-grad-norm", "max_gradient_norm"),
     ("target", "label_col")],
)  # fmt: skip
def test_other_libraries_names_are_understood(config_dir: Path, given: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {meant}\\?"):
        load_experiment(config_dir, "small", [f"{given}=1"])


def test_an_override_key_without_a_similar_one_refers_to_the_config(config_dir: Path) -> None:
    with pytest.raises(UserError, match=r"--set: qqq is not a known key.*see model_config"):
        load_experiment(config_dir, "small", ["qqq=1"])


def test_names_of_other_libraries_are_not_keys_here(config_dir: Path) -> None:
    experiment = load_experiment(config_dir, "small")
    own = {*type(experiment.training).model_fields, *type(experiment.dataset).model_fields}
    assert not own & set(OTHER_NAMES)
