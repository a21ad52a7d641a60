"""The store: whatever is killed, full, broken or shared, what is finished is whole and has the same bytes."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from weightsteer.errors import WeightsteerError
from weightsteer.files import fixed, safe_name
from weightsteer.runtime.store import RECORD, SCRATCH, Artifact, Provenance, Store, explain
from weightsteer.versions import versions

# Three stages in a chain; the middle one resumes from its scratch, as the generation of pairs does.
PIPELINE = """
import sys, time
from pathlib import Path
from weightsteer.files import write_atomically
from weightsteer.runtime.store import Provenance
from weightsteer.runtime.store import SCRATCH, Store

def pipeline(root, pause=0.0):
    store = Store(root)
    def stage(name, inputs, build, *upstream):
        read = {"upstream": [each.digest for each in upstream]}
        made = store.make(Provenance(name, inputs | read, (), tuple(each.folder for each in upstream)), build)
        return store.link(made, Path("m/b", name))
    def numbers(work):
        (work / "inner").mkdir()
        (work / "numbers.txt").write_text("".join(f"{i}\\n" for i in range(50)))
        (work / "inner" / "more.bin").write_bytes(bytes(range(256)) * 40)
    first = stage("numbers", {"n": 50}, numbers)
    def squares(work):
        scratch = work / SCRATCH
        scratch.mkdir(exist_ok=True)
        values = [int(x) for x in (first.path / "numbers.txt").read_text().split()]
        for i, value in enumerate(values[::5]):
            piece = scratch / f"{i}.txt"
            if not piece.exists():
                time.sleep(pause)
                write_atomically(piece, str(value * value).encode())
        pieces = sorted((p for p in scratch.glob("*.txt")), key=lambda p: int(p.stem))
        with (work / "squares.txt").open("w") as file:
            for piece in pieces:
                file.write(piece.read_text() + "\\n")
    second = stage("squares", {"every": 5}, squares, first)
    def total(work):
        (work / "total.txt").write_text(str(sum(map(int, (second.path / "squares.txt").read_text().split()))))
    return stage("total", {}, total, second)

if __name__ == "__main__":
    pipeline(Path(sys.argv[1]), float(sys.argv[2]))
"""
namespace: dict[str, Callable[..., Artifact]] = {"__name__": "pipeline"}
exec(PIPELINE, namespace)
pipeline = namespace["pipeline"]


def tree(root: Path) -> dict[str, bytes]:
    """Every file and link below ``root`` with its content."""
    return {
        path.relative_to(root).as_posix(): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def stage(
    store: Store, name: str, inputs: dict[str, object], build: Callable[[Path], object], link: Path | None = None
) -> Artifact:
    """An artifact of a stage without code, under a link."""
    made = store.make(Provenance(name, inputs, ()), lambda work: build(work) and None)
    return store.link(made, link) if link else made


def text(name: str = "a.txt", content: str = "x") -> Callable[[Path], None]:
    return lambda work: (work / name).write_text(content) and None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    pipeline(root)
    return tree(root)


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    """Without this, every second run repeats the training."""
    first = stage(Store(tmp_path), "data", {"seed": 1}, text())
    again = stage(Store(tmp_path), "data", {"seed": 1}, lambda work: pytest.fail("built twice"))
    assert not first.cached
    assert again.cached
    assert again == first
    assert again.path == first.path


def test_the_record_tells_lineage_and_no_place_or_time(tmp_path: Path) -> None:
    """Two machines must make the same bytes, and every artifact must know what made it."""
    pipeline(tmp_path / "one")
    pipeline(tmp_path / "elsewhere" / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "elsewhere" / "two")
    record = json.loads((tmp_path / "one/m/b/total" / RECORD).read_text())
    assert [name.split("-")[0] for name in record["upstream"]] == ["squares"]
    assert set(record["files"]) == {"total.txt"}
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "record", "not a folder"])
def test_a_damaged_artifact_is_made_again(tmp_path: Path, damage: str) -> None:
    """A truncated adapter that counts as finished would poison everything made from it."""
    path = stage(Store(tmp_path), "data", {}, text(content="hello"), Path("m/data")).path
    before = tree(tmp_path)
    if damage == "truncated":
        os.truncate(path / "a.txt", 2)
    elif damage == "flipped":
        (path / "a.txt").write_text("hellO")
    elif damage == "missing":
        (path / "a.txt").unlink()
    elif damage == "record":
        (path / RECORD).write_text("{")
    else:
        os.rename(path, tmp_path / "aside")
        path.write_text("")
    again = stage(Store(tmp_path), "data", {}, text(content="hello"), Path("m/data"))
    assert not again.cached
    assert {name: data for name, data in tree(tmp_path).items() if not name.startswith("aside")} == before


def test_killed_at_every_step_ends_with_the_same_bytes(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """kill -9 between any two lines of the store or of a builder, then the same command: the same bytes."""

    def run_and_die(root: Path, at: int) -> bool:
        """Run in a child that kills itself before its ``at``-th line; True when it got that far."""
        child = os.fork()
        if child == 0:
            lines = 0

            def trace(frame, event, arg):  # type: ignore[no-untyped-def]
                nonlocal lines
                if not frame.f_code.co_filename.endswith(("store.py", "<string>")):
                    return None
                lines += event == "line"
                if lines == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            try:
                pipeline(root)
            finally:
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    versions()  # what is remembered within a process would otherwise be traced in each child
    chance = random.Random(0)
    at, kills = 1, 0
    while run_and_die(root := tmp_path / str(at), at):
        kills += 1
        if chance.random() < 0.5:  # killed again on the way back
            run_and_die(root, chance.randrange(1, 400))
        pipeline(root)
        assert tree(root) == undisturbed, f"killed before line {at}"
        at += chance.randrange(1, 12)
    assert kills > 100


def test_a_process_killed_at_random_moments_goes_on(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """The same from outside: SIGKILL by the clock, again and again, until a run gets through."""
    script = tmp_path / "pipeline.py"
    script.write_text(PIPELINE)
    chance = random.Random(1)
    command = [sys.executable, str(script), str(tmp_path / "root"), "0.05"]
    for _ in range(15):
        process = subprocess.Popen(command)
        time.sleep(chance.uniform(0.05, 0.4))
        process.kill()
        process.wait()
    subprocess.run(command, check=True)
    assert tree(tmp_path / "root") == undisturbed


def test_an_interrupted_builder_goes_on_from_its_scratch_and_from_nothing_else(tmp_path: Path) -> None:
    """Scratch lost: minutes of work repeated. More than scratch kept: half-written files in the result."""

    def interrupted(work: Path) -> None:
        (work / SCRATCH).mkdir()
        (work / SCRATCH / "piece").write_text("kept")
        (work / "half").write_text("half-wri")
        raise KeyboardInterrupt

    def resumed(work: Path) -> None:
        assert sorted(path.name for path in work.iterdir()) == [SCRATCH]
        (work / "whole").write_text((work / SCRATCH / "piece").read_text())

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stage(store, "data", {}, interrupted)
    made = stage(store, "data", {}, resumed)
    assert sorted(path.name for path in made.path.iterdir()) == [RECORD, "whole"]


def test_two_processes_share_one_root(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Without the lock both build into one folder, and one of them removes the other's files."""
    script = tmp_path / "pipeline.py"
    script.write_text(PIPELINE)
    command = [sys.executable, str(script), str(tmp_path / "root"), "0.02"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(p.wait(), p.communicate()[1]) for p in processes] == [(0, "")] * 4
    assert tree(tmp_path / "root") == undisturbed


def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    """ENOSPC in the middle of a stage: a message, finished stages kept, the same command goes on later."""
    store = Store(tmp_path)
    first = stage(store, "data", {}, text())

    def full(work: Path) -> None:
        (work / SCRATCH).mkdir(exist_ok=True)
        (work / SCRATCH / "piece").write_text("kept")
        with open("/dev/full", "w") as file:  # the kernel's own full disk
            file.write("x")

    with pytest.raises(WeightsteerError, match=r"disk .* is full \(while working on 'train'\).*--out"):
        stage(store, "train", {"data": first.digest}, full)
    assert stage(store, "data", {}, text()).cached
    made = stage(
        store, "train", {"data": first.digest}, lambda w: text()(w) if (w / SCRATCH / "piece").exists() else None
    )
    assert (made.path / "a.txt").exists()


def test_errors_of_the_writing_libraries_are_recognised(tmp_path: Path) -> None:
    """safetensors and polars wrap ENOSPC in types of their own: a traceback on a full disk."""
    import polars
    from safetensors import SafetensorError

    def parquet(work: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            polars.DataFrame({"a": list(range(9999))}).write_parquet(file)

    def safetensors(work: Path) -> None:
        # Raised, not provoked: safetensors renames its file onto its target, which must not be a device.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    for write in (parquet, safetensors):
        with pytest.raises(WeightsteerError, match="full"):
            stage(Store(tmp_path), "x", {"writer": write.__name__}, write)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_refused_permission_says_what_to_do(tmp_path: Path, code: int) -> None:
    """Permission denied is the user's to solve: a message with the path and --out, no traceback."""

    def refused(work: Path) -> None:
        raise OSError(code, os.strerror(code), str(work / "a"))

    with pytest.raises(WeightsteerError, match=r"permission refused.*data.*--out"):
        stage(Store(tmp_path), "data", {}, refused)


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """--out below a file must not end in a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsteerError, match="--out"):
        Store(tmp_path / "file" / "out")


def test_a_users_folder_is_never_replaced_by_a_link(tmp_path: Path) -> None:
    """Somebody's own folder of that name is theirs."""
    (tmp_path / "m" / "data").mkdir(parents=True)
    (tmp_path / "m" / "data" / "mine").write_text("precious")
    with pytest.raises(WeightsteerError, match="move it away"):
        stage(Store(tmp_path), "data", {}, text(), Path("m/data"))
    assert (tmp_path / "m" / "data" / "mine").read_text() == "precious"


def test_mistakes_of_a_builder_are_not_dressed_up(tmp_path: Path) -> None:
    """A bug must show its traceback; a message of ours must pass unchanged."""
    with pytest.raises(ZeroDivisionError):
        stage(Store(tmp_path), "data", {}, lambda work: print(1 / 0))
    with pytest.raises(WeightsteerError, match=r"^say this$"):
        stage(Store(tmp_path), "data", {}, lambda work: (_ for _ in ()).throw(WeightsteerError("say this")))
    assert explain(ValueError("no"), tmp_path, "x") is None


def test_the_link_follows_the_last_run_and_survives_moving_the_root(tmp_path: Path) -> None:
    """An absolute link breaks when the folder is copied to another machine; a stale one shows old results."""
    store = Store(tmp_path / "a")
    stage(store, "data", {"seed": 1}, text(content="one"), Path("m/seed/data"))
    stage(store, "data", {"seed": 2}, text(content="two"), Path("m/seed/data"))
    assert (tmp_path / "a/m/seed/data/a.txt").read_text() == "two"
    stage(store, "data", {"seed": 1}, text(content="one"), Path("m/seed/data"))
    os.rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b/m/seed/data/a.txt").read_text() == "one"


@pytest.mark.parametrize(
    ("name", "safe"),
    [("Qwen/Qwen3-0.6B", "Qwen--Qwen3-0.6B"), ("../../etc", "etc"), ("a b", "a-b"), ("..", "unnamed")],
)
def test_names_become_one_safe_folder(name: str, safe: str) -> None:
    """A model id with slashes or dots must not leave the output folder."""
    assert safe_name(name) == safe


def test_a_link_is_followed_once(tmp_path: Path) -> None:
    """A file below a link that is read for its key and then for its content would be two files, if another run
    redirects the link in between; and people must not be sent to the artifact of that other run."""
    store, link = Store(tmp_path), Path("model/report")

    def of(text: str) -> Artifact:
        def build(work: Path) -> None:
            (work / "a.txt").write_text(text)

        return stage(store, "report", {"text": text}, build, link)

    one = of("one")
    assert one.place == tmp_path / link
    path = fixed(one.place / "a.txt")
    two = of("two")
    assert path.read_text() == "one"
    assert (one.place, two.place) == (one.path, tmp_path / link)
    assert (two.place / "a.txt").read_text() == "two"


def test_the_listing_tells_what_is_current_older_unfinished_and_damaged(tmp_path: Path) -> None:
    """Nobody should wonder where the disk went; and what is pruned must never be what the next run would use."""
    store = Store(tmp_path)
    inputs = {"model": {"name": "pocket"}, "behavior": {"name": "honesty"}, "seed": 3}
    kept = stage(store, "vector", inputs, text(content="x" * 1000), Path("pocket/vector"))
    old = stage(store, "vector", {**inputs, "seed": 4}, text(), Path("pocket/old"))
    record = json.loads((old.path / RECORD).read_text())
    (old.path / RECORD).write_text(json.dumps({**record, "code": "of another version"}))
    broken = stage(store, "vector", {**inputs, "seed": 5}, text(content="hello"))
    os.truncate(broken.path / "a.txt", 2)

    def interrupted(work: Path) -> None:
        (work / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(store, "branch", {}, interrupted)
    found = {one.path: one for one in store.listing()}
    assert {path.name.split("-")[0]: one.state for path, one in found.items() if path.suffix} == {"branch": "partial"}
    assert [found[each.path].state for each in (kept, old, broken)] == ["current", "older", "damaged"]
    assert found[kept.path].made_from == "pocket, honesty, seed 3"
    assert found[kept.path].bytes > 1000
    assert found[kept.path].links == (tmp_path / "pocket/vector",)
    gone = [one for one in found.values() if one.state != "current"]
    assert store.prune(gone) == sum(one.bytes for one in gone)
    assert [one.path for one in store.listing()] == [kept.path]
    assert not (tmp_path / "pocket/old").is_symlink()
    assert stage(store, "vector", inputs, lambda work: pytest.fail("made again")).cached


def test_what_is_being_made_is_not_pruned(tmp_path: Path) -> None:
    """Cleaning up in one terminal must not cost the hour that another is at."""
    store = Store(tmp_path)

    def build(work: Path) -> None:
        (work / "a.txt").write_text("x")
        (one,) = store.listing()
        assert Store(tmp_path).prune([one]) == 0

    assert (stage(store, "data", {}, build).path / "a.txt").exists()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda path: (path / "a.txt").write_text("y"), "a.txt is not as it was written"),
        (lambda path: (path / "a.txt").unlink(), "a.txt is missing"),
        (lambda path: (path / "b.txt").write_text("more"), "b.txt is none of its files"),
        (lambda path: edited(path, inputs={"seed": 2}), "its key is not the digest of the inputs"),
        (lambda path: edited(path, code="another"), "its key is not the digest of the inputs"),
        (lambda path: edited(path, files={}), "its digest is not that of the list of files"),
        (lambda path: edited(path, digest="0" * 32), "its digest is not that of the list of files"),
        (lambda path: edited(path, key="0" * 32), "its key is not the digest of the inputs"),
        (lambda path: (path / RECORD).write_text("[" * 100_000), "damaged"),
    ],
)
def test_an_artifact_vouches_for_itself(tmp_path: Path, edit: Callable[[Path], object], reason: str) -> None:
    """An edited record would pass results of other inputs, or other bytes, for those of a run."""
    store = Store(tmp_path)
    path = stage(store, "data", {"seed": 1}, text()).path
    stage(store, "data", {"seed": 7}, text())
    assert store.verify() == (2, [])
    edit(path)
    read, ((damaged, flaw),) = store.verify()
    assert (read, damaged) == (2, path)
    assert reason in flaw
    assert not stage(store, "data", {"seed": 1}, text()).cached
    assert store.verify() == (2, [])


def edited(path: Path, **changes: object) -> None:
    """Write other fields into a record."""
    record = json.loads((path / RECORD).read_text())
    (path / RECORD).write_text(json.dumps({**record, **changes}))


def test_the_folder_of_another_key_is_noticed(tmp_path: Path) -> None:
    """A folder copied over another one is whole by itself, and of other inputs."""
    store = Store(tmp_path)
    one, other = (stage(store, "data", {"seed": seed}, text()).path for seed in (1, 2))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    assert store.verify() == (2, [(one, "its folder has the name of another key")])
    assert not stage(store, "data", {"seed": 1}, text()).cached


def test_a_planted_link_is_refused(tmp_path: Path) -> None:
    """Whoever can write into a shared output folder could have files written elsewhere by somebody else."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("precious")
    store = Store(tmp_path / "out")
    path = stage(store, "data", {}, text()).path
    shutil.rmtree(path)
    partial = path.with_name(f"{path.name}.partial")
    for planted in (partial, partial / SCRATCH):
        planted.symlink_to(elsewhere)
        with pytest.raises(WeightsteerError, match=r"is a symbolic link.*Remove the link"):
            stage(store, "data", {}, text())
        planted.unlink()
        partial.mkdir(exist_ok=True)
    assert [each.name for each in elsewhere.iterdir()] == ["mine.txt"]
    assert not stage(store, "data", {}, text()).cached


@pytest.mark.parametrize("own", ["file", "link"])
def test_a_users_file_at_the_place_of_a_link_is_kept(tmp_path: Path, own: str) -> None:
    """A report of that name that somebody wrote was replaced without a word."""
    place = tmp_path / "out" / "m" / "data"
    place.parent.mkdir(parents=True)
    (tmp_path / "mine").write_text("precious")
    if own == "file":
        place.write_text("precious")
    else:
        place.symlink_to(tmp_path / "mine")
    with pytest.raises(WeightsteerError, match="move it away"):
        stage(Store(tmp_path / "out"), "data", {}, text(), Path("m/data"))
    assert place.read_text() == "precious"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    """Files that only their owner can read cannot be shared; the libraries that write them make such files."""

    def private(work: Path) -> None:
        (work / "a.txt").write_text("x")
        (work / "a.txt").chmod(0o600)

    before = os.umask(0o027)
    try:
        path = stage(Store(tmp_path), "data", {}, private).path
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {
        "a.txt": "0o640",
        RECORD: "0o640",
    }
