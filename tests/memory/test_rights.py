"""What is said about the user to run as, the pidfile and the log file, before twistd and the kernel say it worse."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from gateway.app import rights
from gateway.app.rights import complaint, gid_of, losses, uid_of

ROOT_ONLY = "--uid and --gid need root's rights; start it as root, or leave them out"


def test_T21_names_and_numbers() -> None:
    nobody = pwd.getpwnam("nobody")
    assert (uid_of("nobody"), uid_of("0"), gid_of("root"), gid_of("77777")) == (nobody.pw_uid, 0, 0, 77777)
    assert (rights.user_name(0), rights.user_name(77777)) == ("root", "77777")


@pytest.mark.parametrize("text", ["nosuch", "", "-1", "1.0", "\u0661", "no\0such"])
def test_T21_who_does_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match="there is no such user"):
        uid_of(text)
    with pytest.raises(ValueError, match="there is no such group"):
        gid_of(text)


def test_T21_who_is_not_root_cannot_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("getuid", 1000), ("geteuid", 1000), ("getgid", 1000)):
        monkeypatch.setattr(os, name, lambda value=value: value)
    assert complaint({"uid": 0, "gid": 0}) == ROOT_ONLY
    assert complaint({"uid": 1000, "gid": 0}) == ROOT_ONLY
    assert complaint({"uid": None, "gid": 1001}) == ROOT_ONLY
    assert complaint({"uid": 1000, "gid": 1000}) == ""
    assert complaint({"uid": None, "gid": None}) == ""


@pytest.mark.parametrize("gid", [None, 0, 77777])
def test_T21_a_number_must_be_a_users(gid: int | None) -> None:
    """Also with --gid: which further groups he is in is known by his name."""
    assert complaint({"uid": 77777, "gid": gid}) == (
        "--uid 77777: there is no such user; `getent passwd` lists those that there are"
    )


def test_a_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    assert complaint({"pidfile": str(tmp_path / "gw.pid")}) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_pidfile_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    pidfile = tmp_path / "gw.pid"
    pidfile.write_text("4711")
    assert complaint({"pidfile": str(pidfile)}) == ""
    assert pidfile.read_text() == "4711"


@pytest.mark.parametrize("text", ["", "\n", "gone", "0", "-5", "99999999999999999999", "4194305", "12 13"])
def test_T21_a_pidfile_that_holds_no_process_is_told_as_such(tmp_path: Path, text: str) -> None:
    """A full disk leaves an empty one; twistd answers with a traceback, or refuses each start without a cure."""
    pidfile = tmp_path / "gw.pid"
    pidfile.write_text(text)
    assert complaint({"pidfile": str(pidfile)}) == f"the pidfile {pidfile} holds no process number; remove it"
    assert pidfile.read_text() == text


def test_T21_a_group_whose_number_is_too_large() -> None:
    assert gid_of("4294967294") == 2**32 - 2
    with pytest.raises(ValueError, match="there is no such group"):
        gid_of("4294967295")


def test_T21_a_pidfile_that_leads_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "gw.pid").symlink_to("/etc/passwd")
    assert complaint({"pidfile": str(tmp_path / "gw.pid")}) == (
        f"the pidfile {tmp_path}/gw.pid is a symbolic link; remove it"
    )


@pytest.mark.parametrize("twistd", [{"pidfile": ""}, {}, {"pidfile": "/none/gw.pid", "chroot": "/srv"}])
def test_nothing_is_said_where_nothing_can_be_known(twistd: dict[str, object]) -> None:
    assert complaint(twistd) == ""


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Paths that nobody may write, root neither."""
    paths: set[str] = set()
    monkeypatch.setattr(rights, "_may", lambda path, mode: path not in paths and os.access(path, mode))
    return paths


def test_T21_an_old_pidfile_in_a_directory_that_cannot_be_written(tmp_path: Path, forbidden: set[str]) -> None:
    pidfile = tmp_path / "gw.pid"
    pidfile.write_text("4711")
    forbidden.add(str(tmp_path))
    said = complaint({"pidfile": str(pidfile)})
    assert said.startswith(f"the pidfile {pidfile} is there already and cannot be replaced: ")


@pytest.mark.parametrize(
    ("locked", "expected"),
    [
        ((), []),
        (("gw.log",), ["gw.log"]),
        ((".",), ["gw.log", "gw.pid"]),
        (("gw.log", "."), ["gw.log", "gw.pid"]),
    ],
)
def test_T21_each_loss_is_told_once(
    tmp_path: Path, forbidden: set[str], locked: tuple[str, ...], expected: list[str]
) -> None:
    log, pidfile = tmp_path / "gw.log", tmp_path / "gw.pid"
    log.touch()
    pidfile.touch()
    forbidden.update(str(tmp_path / name) for name in locked)
    found = list(losses(str(log), str(pidfile)))
    assert [loss.file for loss in found] == [str(tmp_path / name) for name in expected]
    assert all(loss.detail and loss.cure for loss in found)


def test_T21_a_daemon_without_files_loses_none() -> None:
    assert list(losses(None, None)) == []
    assert list(losses(None, "")) == []


def test_T21_in_a_sticky_directory_only_the_owner_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in /tmp: everybody may write there, and nobody may remove what is another's."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    pidfile = shared / "gw.pid"
    pidfile.touch()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert list(losses(None, str(pidfile))) == []
    monkeypatch.setattr(os, "geteuid", lambda: 77777)
    assert [loss.file for loss in losses(None, str(pidfile))] == [str(pidfile)]
