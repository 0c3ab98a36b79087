"""A conversion that ends anywhere and is repeated gives the same bytes; foreign files survive."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from nnunet_semisup import atomic
from nnunet_semisup.dataset_conversion.writing import target
from tests.unit.dataset_conversion.trees import convert, snapshot, texture, write_nrrd

KILLED_AT_PUBLISH = """
import os, sys
from nnunet_semisup import atomic
from nnunet_semisup.cli.convert import main
left = [int(sys.argv[1])]
publish = atomic.publish
def publish_or_die(temporary, path):
    if left[0] == 0:
        os._exit(9)
    left[0] -= 1
    publish(temporary, path)
atomic.publish = publish_or_die
main(sys.argv[2:])
"""


class Killed(BaseException):
    """Ends the command as no handler of it expects."""


def name_of(roots):
    return roots["raw"] / "Dataset501_LA2018"


@pytest.fixture
def complete(roots, download):
    """What an undisturbed conversion writes; the folder is free again."""
    assert convert(download) == 0
    content = snapshot(name_of(roots))
    shutil.rmtree(name_of(roots))
    return content


def test_killed_before_any_file_and_restarted(roots, download, complete, monkeypatch):
    publish = atomic.publish
    for number in range(len(complete) + 1):

        def publish_or_die(temporary, path, left=[number]):  # noqa: B006 - counts the calls
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            publish(temporary, path)

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "publish", publish_or_die)
            with pytest.raises(Killed):
                convert(download)
        assert not name_of(roots).exists()
        assert convert(download) == 0
        assert snapshot(name_of(roots)) == complete
        assert [path.name for path in roots["raw"].iterdir()] == ["Dataset501_LA2018"]
        shutil.rmtree(name_of(roots))


@pytest.mark.parametrize("number", [0, 4, 11])
def test_killed_by_the_system_and_restarted(roots, download, complete, number):
    command = [sys.executable, "-c", KILLED_AT_PUBLISH, str(number), "la", str(download.root)]
    command += ["-d", "501", "-np", "1", "--split", str(download.split)]
    done = subprocess.run(command, env=os.environ.copy(), capture_output=True, check=False)
    assert done.returncode == 9
    staging = roots["raw"] / ".Dataset501_LA2018.unfinished"
    assert any(path.name.startswith(".tmp-") for path in staging.rglob("*"))
    assert convert(download) == 0
    assert snapshot(name_of(roots)) == complete


@pytest.mark.parametrize("step", ["_tidy", "close"])
def test_killed_while_put_in_place(roots, download, complete, monkeypatch, step):
    def die(self):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target.Target, step, die)
        with pytest.raises(Killed):
            convert(download)
    convert(download)
    assert snapshot(name_of(roots)) == complete
    assert [path.name for path in roots["raw"].iterdir()] == ["Dataset501_LA2018"]


def test_complete_files_are_not_written_again(roots, download, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(target.Target, "close", lambda self: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            convert(download)
    written = []
    monkeypatch.setattr(
        "nnunet_semisup.dataset_conversion.writing.dataset_writer.write_volume",
        lambda image, path: written.append(path.name),
    )
    assert convert(download) == 0
    assert written == []


def test_damaged_file_of_the_unfinished_run_is_written_again(
    roots, download, complete, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(target.Target, "close", lambda self: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            convert(download)
    file = roots["raw"] / ".Dataset501_LA2018.unfinished" / "imagesTr" / "AAAA_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:-1])
    assert convert(download) == 0
    assert snapshot(name_of(roots)) == complete


@pytest.mark.parametrize("change", ["options", "sources"])
def test_unfinished_run_of_another_command_is_left_alone(
    roots, download, capsys, monkeypatch, change
):
    with monkeypatch.context() as patch:
        patch.setattr(target.Target, "close", lambda self: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            convert(download)
    before = snapshot(roots["raw"])
    extra = ["--labeled", "1"] if change == "options" else []
    if change == "sources":
        write_nrrd(texture(50), download.image("CCCC"))
    assert convert(download, *extra) == 2
    assert "unfinished conversion with other options or sources" in capsys.readouterr().err
    assert snapshot(roots["raw"]) == before
    assert convert(download, *extra, "--overwrite") == 0


def test_overwrite_replaces_only_what_this_command_wrote(roots, download, capsys):
    assert convert(download) == 0
    assert convert(download) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    (name_of(roots) / "notes.txt").write_text("mine")
    before = snapshot(roots["raw"])
    assert convert(download, "--overwrite") == 2
    assert "notes.txt was not written by this converter" in capsys.readouterr().err
    assert snapshot(roots["raw"]) == before
    (name_of(roots) / "notes.txt").unlink()
    assert convert(download, "--overwrite", "--labeled", "1") == 0
    assert (
        json.loads((name_of(roots) / "dataset.json").read_text(encoding="utf-8"))["numTraining"]
        == 2
    )


def test_foreign_data_set_is_never_deleted(roots, download, capsys):
    (name_of(roots) / "imagesTr").mkdir(parents=True)
    assert convert(download, "--overwrite") == 2
    assert "was not written by this converter" in capsys.readouterr().err
    assert (name_of(roots) / "imagesTr").is_dir()


@pytest.mark.parametrize("root", ["raw", "preprocessed", "results"])
def test_id_in_use_is_refused(roots, download, capsys, root):
    (roots[root] / "Dataset501_Other").mkdir()
    assert convert(download, "--overwrite") == 2
    assert "the id 501 is in use by" in capsys.readouterr().err
