import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from tossctr.errors import UserError
from tossctr.inference.predict import Predictions
from tossctr.inference.submission import read_sample, write_submission


def parts(ids, logits, size=2):
    for i in range(0, len(ids), size):
        yield Predictions(np.array(logits[i : i + size]), None, pa.array(ids[i : i + size]))


IDS = ["TEST_0", "TEST_1", "TEST_2"]


def sample_file(tmp_path, ids, header="ID,clicked"):
    path = tmp_path / "sample.csv"
    path.write_text("\n".join([header, *(f"{i},0" for i in ids)]) + "\n")
    return path


def test_follows_the_sample_order_and_header(tmp_path):
    sample = sample_file(tmp_path, ["TEST_2", "TEST_0", "TEST_1"], header="id,prediction")
    output = tmp_path / "out" / "submission.csv"
    rows = write_submission(
        parts(IDS, [0.0, 1.0, -1.0]), output, sample=read_sample(sample), header=("ID", "clicked")
    )
    assert rows == 3
    lines = output.read_text().splitlines()
    assert lines[0] == "id,prediction"
    assert [line.split(",")[0] for line in lines[1:]] == ["TEST_2", "TEST_0", "TEST_1"]
    assert float(lines[2].split(",")[1]) == 0.5


def test_ids_with_commas_survive(tmp_path):
    output = tmp_path / "s.csv"
    write_submission(
        parts(["a,b", 'c"d', "e"], [0.0, 1.0, 2.0]), output, sample=None, header=("ID", "clicked")
    )
    assert pyarrow.csv.read_csv(output)["ID"].to_pylist() == ["a,b", 'c"d', "e"]


def test_ids_that_repeat_are_written_and_counted(tmp_path, capsys):
    write_submission(parts(IDS, [0, 1, 2]), tmp_path / "s.csv", sample=None, header=("ID", "p"))
    assert "repeat" not in capsys.readouterr().err
    ids = ["u1", "u2", "u1", "u1", "u3"]
    write_submission(parts(ids, [0] * 5), tmp_path / "s.csv", sample=None, header=("user", "p"))
    assert "2 of 5 rows repeat an earlier row's user: all are written" in capsys.readouterr().err
    assert pyarrow.csv.read_csv(tmp_path / "s.csv")["user"].to_pylist() == ids


def test_probabilities_keep_every_digit(tmp_path):
    output = tmp_path / "s.csv"
    logits = [-3.123456789012345, -20.0, 12.0]
    write_submission(parts(IDS, logits), output, sample=None, header=("ID", "clicked"))
    written = pyarrow.csv.read_csv(output).column("clicked").to_numpy()
    np.testing.assert_allclose(written, 1 / (1 + np.exp(-np.array(logits))), rtol=1e-15)


@pytest.mark.parametrize(
    ("sample_ids", "ids", "logits", "message"),
    [
        (["TEST_0", "TEST_1"], IDS, [0, 0, 0], "has 2 rows, but the test file has 3"),
        (["TEST_0", "TEST_1", "TEST_9"], IDS, [0, 0, 0], "TEST_9"),
        (["TEST_0", "TEST_1", "TEST_1"], IDS, [0, 0, 0], "repeated in the sample"),
        (IDS, ["TEST_0", "TEST_1", "TEST_1"], [0, 0, 0], "repeated in the test file"),
        (IDS, IDS, [0, float("nan"), 0], "not a probability"),
    ],
)
def test_a_wrong_submission_is_never_written(tmp_path, sample_ids, ids, logits, message):
    output = tmp_path / "submission.csv"
    output.write_text("the one before")
    sample = sample_file(tmp_path, sample_ids)
    with pytest.raises(UserError, match=message):
        write_submission(
            parts(ids, logits), output, sample=read_sample(sample), header=("ID", "clicked")
        )
    assert output.read_text() == "the one before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sample.csv", "submission.csv"]


def test_missing_sample_is_one_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_sample(tmp_path / "no.csv")


def a_folder(path):
    path.mkdir()


def a_pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (a_folder, "is a folder"),
        (a_pipe, "neither a file nor a folder"),
        (b"ID,clicked\n", "without rows"),
        (b"ID;clicked\nTEST_0;secret\n", "has 1"),
        (b"ID,a,b\nTEST_0,secret,2\n", "has 3"),
        ("ID,Größe\nsecret,0\n".encode("latin-1"), "UTF-8"),
        (b"ID,clicked\nsecret,0,1\n", "not CSV"),
        (b"ID,ID\nsecret,0\n", "different names"),
        (b"", "not CSV"),
    ],
)
def test_a_file_that_is_not_a_sample_is_refused_without_showing_its_content(
    tmp_path, made, message
):
    path = tmp_path / "sample.csv"
    if callable(made):
        made(path)
    else:
        path.write_bytes(made)
    with pytest.raises(UserError, match=message) as caught:
        read_sample(path)
    assert "secret" not in str(caught.value)


def test_a_header_with_a_comma_is_quoted_as_in_the_sample(tmp_path):
    sample = sample_file(tmp_path, IDS, header='"ID,x","the ""click"""')
    output = tmp_path / "out.csv"
    write_submission(
        parts(IDS, [0.0, 1.0, 2.0]), output, sample=read_sample(sample), header=("a", "b")
    )
    assert pyarrow.csv.read_csv(output).column_names == ["ID,x", 'the "click"']
