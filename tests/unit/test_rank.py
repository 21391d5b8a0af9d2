"""``rank``: what it reads, prints and refuses."""

import json
from pathlib import Path

import pytest

from bot.rank import rank_command


def written(
    directory: Path, service: str, level: float, rows: int, *, header: str = "timestamp,latency_avg,cpu"
) -> Path:
    directory.mkdir(exist_ok=True)
    lines = [header]
    lines += [
        f"{1700000000 + 60 * n},{level * (1 + 0.05 * ((n * 7) % 5 - 2)):.6f},{0.2 + 0.01 * (n % 3)}"
        for n in range(rows)
    ]
    path = directory / f"{service}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A baseline, a window in which b and its caller a are slow, and the graph."""
    before, during, graph = tmp_path / "before", tmp_path / "during", tmp_path / "edges.csv"
    for service, usual, now in (("a", 0.3, 0.9), ("b", 0.2, 0.8), ("c", 0.1, 0.1)):
        written(before, service, usual, 100)
        written(during, service, now, 20)
    graph.write_text("caller,callee\na,b\na,c\n")
    return before, during, graph


Folders = tuple[Path, Path, Path]


def test_json_is_the_documented_object(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    before, during, graph = folders
    assert rank_command(before, during, graph, as_json=True) == 0
    out = capsys.readouterr()
    services = json.loads(out.out)["services"]
    assert services[0]["service"] == "b"
    assert set(services[0]) == {"service", "score", "reason", "metrics"}
    assert set(services[0]["metrics"][0]) == {"metric", "score", "direction", "reason"}
    assert services[0]["metrics"][0]["metric"] == "latency_avg"
    assert out.err == ""


def test_text_names_the_likeliest_first(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    before, during, graph = folders
    assert rank_command(before, during, graph, as_json=False) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.strip().startswith("1. b ")
    assert "above its baseline" in first


def test_a_usual_window_says_so(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    before, _, _ = folders
    assert rank_command(before, before, None, as_json=False) == 0
    assert capsys.readouterr().out == "Nothing left its baseline: no service stands out.\n"


@pytest.mark.parametrize("header", ["time,latency_avg,cpu", "ts,latency_avg,cpu", "Timestamp,latency_avg,cpu"])
def test_names_of_the_timestamp(folders: Folders, header: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, during, _ = folders
    written(during, "b", 0.8, 20, header=header)
    assert rank_command(before, during, None, as_json=True) == 0
    assert len(json.loads(capsys.readouterr().out)["services"]) == 3


def test_iso_times_empty_cells_duplicates_and_disorder_are_read(folders: Folders) -> None:
    before, during, _ = folders
    (during / "b.csv").write_text(
        "timestamp,latency_avg,cpu\n2024-01-01T00:02:00Z,0.8,NaN\n2024-01-01T00:01:00+00:00,,0.2\n"
        "\n2024-01-01T00:02:00,0.9,\n"
    )
    assert rank_command(before, during, None, as_json=True) == 0


def test_services_of_one_side_are_named(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    before, during, graph = folders
    (during / "c.csv").unlink()
    written(during, "d", 0.1, 20)
    assert rank_command(before, during, graph, as_json=True) == 0
    out = capsys.readouterr()
    assert "not in the window, so not compared: c" in out.err
    assert "not in the baseline, so not compared: d" in out.err
    assert len(json.loads(out.out)["services"]) == 4


def test_graph_names_may_lack_metrics_or_hold_what_a_file_name_cannot(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    before, during, graph = folders
    for folder in (before, during):
        (folder / "b.csv").rename(folder / "svc_b.csv")
    graph.write_text("caller,callee\na,proxy\nproxy,svc/b\n")
    assert rank_command(before, during, graph, as_json=True) == 0
    out = capsys.readouterr()
    assert "without a CSV, calls go through them: proxy\n" in out.err
    assert json.loads(out.out)["services"][0]["service"] == "svc_b"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("b.csv", "when,cpu\n1,2\n", "b.csv: no timestamp column"),
        ("b.csv", "", "b.csv: no timestamp column"),
        ("b.csv", "timestamp,cpu\n1,2\n2,many\n", "b.csv, line 3: cpu is 'many', not a number"),
        ("b.csv", "timestamp,cpu\nnoon,2\n", "b.csv, line 2: 'noon' is no time"),
        ("b.csv", "timestamp,cpu\nnan,2\n", "b.csv, line 2: the timestamp is 'nan'"),
        ("b.csv", "timestamp,cpu\n1,2,3\n", "b.csv, line 2: 3 cells, the header has 2"),
        ("b.csv", "timestamp,cpu\n1,\xff\n", "b.csv cannot be read as CSV"),
        ("../edges.csv", "from,to\na,b\n", "edges.csv: the header must be caller,callee"),
        ("../edges.csv", "caller,callee\na\n", "edges.csv, line 2: an edge needs a caller and a callee"),
        ("../edges.csv", "caller,callee\nx,y\n", "edges.csv names no service that has a CSV: x, y"),
    ],
)
def test_bad_input_is_one_clear_line(
    folders: Folders, name: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, during, graph = folders
    (during / name).write_bytes(text.encode("latin-1"))
    assert rank_command(before, during, graph, as_json=True) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("sre-bot: ")
    assert said in out.err
    assert out.err.count("\n") == 1


def test_missing_and_empty_directories_are_named(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, during, _ = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    assert rank_command(tmp_path / "nowhere", during, None, as_json=False) == 2
    assert "--baseline" in capsys.readouterr().err
    assert rank_command(before, empty, None, as_json=False) == 2
    assert "holds no .csv file" in capsys.readouterr().err
    assert rank_command(before, during, tmp_path / "no.csv", as_json=False) == 2
    assert "no.csv cannot be read" in capsys.readouterr().err
