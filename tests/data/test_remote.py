"""URLs: servers that do not answer, and secrets that are not kept."""

import json
import socket

import pytest

from tossctr import location
from tossctr.config.schema import DatasetConfig, LabelSpec, TrainingConfig
from tossctr.data.preparing.fingerprint import Inputs
from tossctr.data.sources.opening import open_source
from tossctr.errors import UserError
from tossctr.location import exists, stamp
from tossctr.progress import say
from tossctr.redaction import redacted


@pytest.fixture
def silent():
    """A server that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/train.parquet"


@pytest.mark.parametrize("ask", [exists, stamp, lambda url: open_source(url, {})])
def test_a_server_that_does_not_answer_is_given_up_in_one_line(silent, ask, monkeypatch):
    monkeypatch.setattr(location, "ANSWER_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"does not answer within 0\.2 s"):
        ask(silent)


def test_a_server_that_is_not_there_is_no_missing_file():
    with pytest.raises(UserError, match="cannot be reached"):
        exists("http://127.0.0.1:9/train.parquet")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://eve:geheim@host/a.parquet", "https://eve:***@host/a.parquet"),
        ("s3://key:geheim@bucket/a", "s3://key:***@bucket/a"),
        ("postgresql+psycopg://u:geheim@db:5432/x", "postgresql+psycopg://u:***@db:5432/x"),
        ("https://h/a?X-Amz-Signature=geheim&b=1", "https://h/a?X-Amz-Signature=***&b=1"),
        ("cannot open 'https://h/a?sig=geheim'", "cannot open 'https://h/a?sig=***'"),
        ("--set train_data=ftp://:geheim@h/x", "--set train_data=ftp://:***@h/x"),
        ("https://host:8080/a@b:c", "https://host:8080/a@b:c"),
        ("learning_rate=0.1, key=5", "learning_rate=0.1, key=5"),
    ],
)
def test_secrets_of_urls_are_hidden_and_nothing_else(text, expected):
    assert redacted(text) == expected


def test_passwords_are_in_no_file_and_no_message(capsys, monkeypatch):
    url = "memory://eve:geheim@host/train.parquet?token=geheim"
    dataset = DatasetConfig(
        dataset_id="d",
        train_data=url,
        test_data=url,
        label_col=LabelSpec(name="y"),
        feature_cols=(),
    )
    training = TrainingConfig(mlflow_uri="https://eve:geheim@mlflow.example")
    assert dataset.train_data == url  # what is opened is whole
    assert training.mlflow_uri == "https://eve:geheim@mlflow.example"
    say(f"reading {url}")
    written = [
        dataset.model_dump_json(),
        json.dumps(training.model_dump(mode="json")),
        UserError("no", file=url, value=url).line(),
        str(UserError(f"cannot be read: {url}")),
        capsys.readouterr().err,
    ]
    import tossctr.data.preparing.fingerprint as fingerprint

    monkeypatch.setattr(fingerprint, "_stat", lambda path: {"size": 1, "etag": "e"})
    monkeypatch.setattr(fingerprint, "_content", lambda path: "hash")
    with Inputs({"train": url}) as inputs:
        described = inputs.as_dict()
        assert inputs.same_as(described)
    written.append(json.dumps(described))
    assert [text for text in written if "geheim" in text] == []
    assert all("***" in text for text in written)


def test_a_url_without_its_password_is_refused_in_true_words():
    with pytest.raises(UserError, match=r"the password or token of this URL was not saved"):
        exists("https://eve:***@host/train.parquet")
