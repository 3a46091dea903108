"""`intent bench`, as it is typed: small logs that anybody can predict, and everything that a log can be instead."""

import gzip
import json
import pickle
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from intent_platform import cli
from intent_platform.bench.public_logs import PROTOCOLS, load_log
from intent_platform.bench.purchase import run_excerpt
from intent_platform.errors import FileUnreadable, NotEnoughData

ITEMS = 12
ROUND = [[(start + step) % ITEMS for step in range(5)] for start in range(ITEMS)] * 6
"""Sessions that walk along the items in one order: what comes next is certain."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INTENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INTENT_THREADS", "1")
    return tmp_path / "home"


def packed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def write_diginetica(folder: Path, sessions: list = ROUND, examples: list | None = None) -> Path:
    asked = [{"prefix": run[:3], "target": run[3]} for run in ROUND[:20]] if examples is None else examples
    packed(folder / "train_sessions.jsonl.gz", "".join(json.dumps(each) + "\n" for each in sessions))
    packed(folder / "test_examples.jsonl.gz", "".join(json.dumps(each) + "\n" for each in asked))
    return folder


def write_beauty(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = (" ".join(map(str, [user, *(item + 1 for item in run)])) for user, run in enumerate(ROUND, 1))
    (folder / "sequences.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_office(folder: Path, header: str = "user_id,history_item_id,item_id") -> Path:
    titles = {str(number): {"title": f"Pencil {number}"} for number in range(ITEMS)}
    packed(folder / "items.json.gz", json.dumps(titles))
    rows = [f'A{user},"{run[:4]}",{run[4]}' for user, run in enumerate(ROUND)]
    packed(folder / "valid.csv.gz", "\n".join([header, *rows]))
    packed(folder / "test.csv.gz", "\n".join([header, *rows[:20]]))
    return folder


WRITERS = {"diginetica": write_diginetica, "beauty": write_beauty, "office": write_office}


@pytest.mark.parametrize("protocol", WRITERS)
def test_a_small_log_is_learned_and_its_figures_are_kept(protocol, tmp_path, home):
    WRITERS[protocol](tmp_path / "data" / PROTOCOLS[protocol].folder)
    words = ["bench", "next-item", "--data", str(tmp_path / "data"), "--protocol", protocol, "--epochs", "1"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.exception
    result = json.loads((home / "bench" / f"next-item-{protocol}.json").read_text())
    assert set(result) == {"name", "figures", "peers", "data_digest", "commit", "machine", "command"}
    hits = "p_at_20" if protocol == "diginetica" else "hr_at_10"
    assert result["figures"][hits] > 0.9
    assert {"popularity", "vsknn", "network"} <= set(result["peers"])
    assert not list((home / "bench" / "training").iterdir())  # or the next run would only read what this one learned


def test_the_folder_of_a_log_is_as_good_as_the_folder_that_holds_it(tmp_path):
    write_beauty(tmp_path / "data" / "amazon_beauty")
    assert load_log("beauty", tmp_path / "data") == load_log("beauty", tmp_path / "data" / "amazon_beauty")


def test_an_unknown_protocol_is_told_with_those_there_are(tmp_path):
    done = CliRunner().invoke(cli.app, ["bench", "next-item", "--data", str(tmp_path), "--protocol", "movies"])
    assert done.exit_code == 2
    assert "diginetica, beauty, office" in " ".join(done.output.replace("│", " ").split())


def test_what_is_wrong_with_the_data_ends_with_a_message_and_status_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["intent", "bench", "next-item", "--data", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'nowhere'} is no folder. Give the folder of diginetica's")


class Malicious:
    """Reading it back writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("protocol_number", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["sequences.txt", "sequences.pkl", "train.txt"])
def test_a_pickle_is_refused_and_not_read(tmp_path, protocol_number, place):
    data = tmp_path / "data"
    data.mkdir()
    content = [[1, 2, 3]], Malicious(tmp_path / "trace")
    for number, each in enumerate((content, content[1], list(content))):
        (data / place).write_bytes(pickle.dumps(each, protocol=protocol_number))
        with pytest.raises(FileUnreadable, match="is a Python pickle and is not read"):
            load_log("beauty", data)
        with pytest.raises(FileUnreadable, match="is a Python pickle and is not read"):
            run_excerpt(data / place if number else data, 1)
    assert not (tmp_path / "trace").exists()


def test_a_packed_pickle_is_refused(tmp_path):
    write_diginetica(tmp_path)
    (tmp_path / "train_sessions.jsonl.gz").write_bytes(gzip.compress(pickle.dumps(ROUND)))
    with pytest.raises(FileUnreadable, match=r"train_sessions.jsonl.gz is a Python pickle"):
        load_log("diginetica", tmp_path)


def plain(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


BAD_LOGS = {
    "a file is missing": (
        "diginetica",
        lambda folder: (folder / "test_examples.jsonl.gz").unlink(),
        r"lacks 1 of the 2 files of diginetica: test_examples.jsonl.gz. Give",
    ),
    "empty": ("beauty", plain("sequences.txt", b""), r"holds no lines. Fetch it again"),
    "words": ("beauty", plain("sequences.txt", b"1 2 3 4\n2 apple 3 4\n"), r"line 2 .*'apple'"),
    "a short run": ("beauty", plain("sequences.txt", b"1 2 3 4\n2 3 4\n"), r"line 2 .*3 numbers or more"),
    "item 0": ("beauty", plain("sequences.txt", b"1 0 3 4\n"), r"line 1 .*-1 is no item"),
    "a huge item": ("beauty", plain("sequences.txt", b"1 2 3 99999999999\n"), r"line 1 .*below 10,000,000"),
    "junk": ("beauty", plain("sequences.txt", bytes(range(128, 256)) * 9), r"UnicodeDecodeError"),
    "no gzip": ("diginetica", plain("train_sessions.jsonl.gz", b"[1, 2]\n"), r"BadGzipFile"),
    "cut gzip": (
        "diginetica",
        lambda folder: (folder / "train_sessions.jsonl.gz").write_bytes(
            (folder / "train_sessions.jsonl.gz").read_bytes()[:-12]
        ),
        r"(EOFError|error).*Fetch it again",
    ),
    "no JSON": (
        "diginetica",
        lambda folder: packed(folder / "train_sessions.jsonl.gz", "[1, 2]\n[1, \n"),
        r"line 2 .*JSONDecodeError",
    ),
    "another form": (
        "diginetica",
        lambda folder: packed(folder / "test_examples.jsonl.gz", '{"prefix": [1]}\n'),
        r"test_examples.jsonl.gz cannot be read at line 1 \(KeyError: 'target'\)",
    ),
    "items that are no numbers": (
        "diginetica",
        lambda folder: packed(folder / "train_sessions.jsonl.gz", "[true, 1.5]\n"),
        r"line 1 .*True is no item",
    ),
    "other columns": ("office", lambda folder: write_office(folder, header="a,b,c"), r"line 2 .*'history_item_id'"),
    "no catalogue": ("office", lambda folder: packed(folder / "items.json.gz", "{}"), r"none of 0 items has a title"),
    "no title": ("office", lambda folder: packed(folder / "items.json.gz", '{"0": {"title": null}}'), r"TypeError"),
    "an item of no catalogue": (
        "office",
        lambda folder: packed(folder / "items.json.gz", '{"0": {"title": "Pencil"}}'),
        r"valid.csv.gz cannot be read at line 2 .*item 4 is not among the 1 of the catalogue",
    ),
    "no catalogue but a list": ("office", lambda folder: packed(folder / "items.json.gz", "[1]"), r"TypeError"),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_a_log_that_cannot_be_read_is_told_with_file_line_and_what_to_do(case, tmp_path):
    protocol, spoil, message = BAD_LOGS[case]
    folder = WRITERS[protocol](tmp_path / "log")
    spoil(folder)
    with pytest.raises(FileUnreadable, match=message) as told:
        load_log(protocol, folder)
    assert str(folder) in str(told.value)


@pytest.mark.parametrize(
    ("sessions", "examples"), [(ROUND[:1], None), (ROUND, []), ([[1]] * 30, None)], ids=["one", "no test", "lone items"]
)
def test_a_log_that_is_too_small_is_told_with_what_it_has(tmp_path, sessions, examples):
    write_diginetica(tmp_path, sessions, examples)
    with pytest.raises((NotEnoughData, FileUnreadable), match=r"each needs one at least|holds no lines"):
        load_log("diginetica", tmp_path)


COLUMNS = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"


def excerpt(sessions: int) -> str:
    """Every third session buys what it looked at twice."""
    rows = [COLUMNS]
    for number in range(sessions):
        for step, kind in enumerate(["view", "view", "purchase"] if number % 3 == 0 else ["view", "view"]):
            moment = time.strftime("%H:%M:%S", time.gmtime(20 * number + step))
            rows.append(f"2019-10-01 {moment} UTC,{kind},{number % 7},1,a.b,c,{5 + number % 7},{number},s{number}")
    return "\n".join(rows) + "\n"


def test_a_real_shops_excerpt_is_asked_in_five_folds(tmp_path, home):
    (tmp_path / "2019-10-01.csv").write_text(excerpt(150))
    done = CliRunner().invoke(cli.app, ["bench", "purchase", "--data", str(tmp_path), "--epochs", "1"])
    assert done.exit_code == 0, done.exception
    result = json.loads((home / "bench" / "purchase-rees46.json").read_text())
    assert result["figures"]["prefixes"] == 150
    assert {"auc", "pr_auc", "log_loss", "calibration_error"} <= set(result["figures"])
    assert set(result["peers"]) == {"boosted_trees", "logistic"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "hello", "holds no day file of REES46's form"),
        ("october.csv", excerpt(10), "of 1 CSV files one is not named by its day"),
        ("2019-10-01.csv", "a,b\n1,2\n", "needs columns|lacks"),
        ("2019-10-01.csv", excerpt(4), "2 sessions end in a purchase and 2 do not; 5 folds"),
    ],
    ids=["no file", "no day", "other columns", "few buyers"],
)
def test_an_excerpt_that_does_not_do_is_told(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    done = CliRunner().invoke(cli.app, ["bench", "purchase", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert message.split("|")[0] in str(done.exception) or message.split("|")[-1] in str(done.exception)


def test_a_day_that_lies_there_twice_is_told(tmp_path):
    for name in ("2019-10-01.csv", "2019-10-01.csv.gz"):
        (tmp_path / name).write_text("")
    done = CliRunner().invoke(cli.app, ["bench", "purchase", "--data", str(tmp_path)])
    assert "holds a day twice: beside 2019-10-01.csv lies another" in str(done.exception)


def test_options_of_the_synthetic_shop_are_not_silently_left_out(tmp_path):
    done = CliRunner().invoke(cli.app, ["bench", "purchase", "--data", str(tmp_path), "--users", "20"])
    assert done.exit_code == 2


def test_a_shop_of_too_few_days_is_told():
    done = CliRunner().invoke(cli.app, ["bench", "purchase", "--users", "20", "--days", "3"])
    assert isinstance(done.exception, NotEnoughData)
    assert "3 days leave 0 to learn from, 0 for validation and 2 for the test. Give more --days." in str(done.exception)
