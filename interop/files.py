"""What an FTP client is asked to do, how each of them does it, and how one sees that it was done.

The client's folder and the user's folder at the server begin with these files:

* here: `large`, the first half of it as `part`, and many small ones in `small`;
* there: the first half of `large` as `half`, an empty folder `small`, and `endless`, a gigabyte of nothing.

The client lists (`listing`), stores `large`, fetches it again (`back`), completes `half` there and `part` here, stores
the small files and fetches them (`got`), begins to fetch `endless`, aborts it, and lists again (`after`).
"""

from __future__ import annotations

import filecmp
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from interop.jobs import HOST, Command, Job

How = Callable[[Job, bool], Command]
"""A client, and whether it lets the server connect (active mode)."""
_NAME = "{:04}"
"""Of a small file."""


@dataclass(frozen=True)
class Parcel:
    job: Job
    there: Path

    @property
    def here(self) -> Path:
        return self.job.directory

    def lay_out(self) -> None:
        """The folder there is emptied first."""
        half = self.job.octets // 2
        block = random.randbytes(1 << 20)
        with (self.here / "large").open("wb") as large:
            for number in range(self.job.octets // len(block) + 1):
                large.write(number.to_bytes(8, "big") + block[8:])
            large.truncate(self.job.octets)
        for number in range(self.job.files):
            path = self.here / "small" / _NAME.format(number)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"%d\n" % number * (1 + number % 100))
        for path in self.there.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.there / "endless").touch()
        os.truncate(self.there / "endless", 1 << 30)
        (self.there / "small").mkdir()
        for path in (self.here / "part", self.there / "half"):
            shutil.copy(self.here / "large", path)
            os.truncate(path, half)
        owner = self.there.stat()
        for path in self.there.iterdir():
            os.chown(path, owner.st_uid, owner.st_gid)

    @property
    def came(self) -> bool:
        """Whether anything came through, in either direction."""
        here = [self.here / "listing", self.here / "back", self.here / "after", *(self.here / "got").glob("*")]
        return any(path.exists() for path in (self.there / "large", *here))

    def difference(self) -> str:
        """What the client did not do; nothing if it did all."""
        large = self.here / "large"
        files: Sequence[tuple[str, Path]] = (
            ("store", self.there / "large"),
            ("fetch", self.here / "back"),
            ("resume storing", self.there / "half"),
            ("resume fetching", self.here / "part"),
        )
        wrong = [what for what, path in files if not (path.exists() and filecmp.cmp(large, path, shallow=False))]
        for what, name in (("list", "listing"), ("abort", "after")):
            path = self.here / name
            if not (path.exists() and b"endless" in path.read_bytes()):
                wrong.append(what)
        names = [_NAME.format(number) for number in range(self.job.files)]
        for what, folder in (("store many", self.there / "small"), ("fetch many", self.here / "got")):
            same = filecmp.cmpfiles(self.here / "small", folder, names, shallow=False)[0] if folder.exists() else []
            if len(same) != self.job.files:
                wrong.append(f"{what} ({len(same)} of {self.job.files})")
        return f"it did not {', '.join(wrong)}" if wrong else ""


# --- clients ------------------------------------------------------------------------------------------

_CURL = """
cd "$0"
set -e
ftp() {{
    curl {options} "$@"
}}
url={scheme}://{host}:{port}
ftp $url/ --output listing
ftp --upload-file large $url/large
ftp $url/large --output back
ftp --continue-at - --upload-file large $url/half
ftp --continue-at - $url/large --output part
mkdir got
ftp --upload-file 'small/[0000-{last:04}]' $url/small/
ftp "$url/small/[0000-{last:04}]" --output 'got/#1'
ftp --range 0-99999 $url/endless --output head --next {options} $url/ --output after
"""
_CURL_OPTIONS = (
    '--max-time 20 --silent --show-error --ssl-reqd --cacert authority.pem --user "$USER:$PASSWORD" {active}'
)


def curl(job: Job, active: bool) -> Command:
    script = _CURL.format(
        options=_CURL_OPTIONS.format(active="--ftp-port -" if active else ""),
        scheme="ftps" if job.mode == "implicit" else "ftp",
        host=HOST,
        port=job.port,
        last=job.files - 1,
    )
    return Command(["sh", "-c", script, job.directory], environment=_login(job))


_LFTP = """
set ssl:ca-file authority.pem
set ssl:verify-certificate yes
set ftp:ssl-force yes
set ftp:ssl-protect-data yes
set ftp:ssl-protect-list yes
set ftp:passive-mode {passive}
set net:max-retries 2
set net:reconnect-interval-base 1
set net:timeout 20
set cmd:fail-exit no
open --env-password --user {user} -p {port} {scheme}://{host}
ls > listing
set ftp:use-mode-z no
put large
put -c large -o half
set ftp:use-mode-z yes
get large -o back
get -c large -o part
mirror --reverse --overwrite small small
mirror small got
set net:timeout 4
cat endless | head -c 100000 > head
set net:timeout 20
ls > after
bye
"""
# ProFTPD takes 20 s for a megabyte that comes in MODE Z, also without the gateway.  Lists, small files and what is
# fetched are in MODE Z where the server has it.
# Pure-FTPd says one reply to an aborted transfer and ABOR; lftp waits for the second one until net:timeout.


def lftp(job: Job, active: bool) -> Command:
    script = _LFTP.format(
        passive="no" if active else "yes",
        user=job.user,
        port=job.port,
        scheme="ftps" if job.mode == "implicit" else "ftp",
        host=HOST,
    )
    file = job.write("script", script)
    environment = {"LFTP_PASSWORD": job.password}
    return Command(["sh", "-c", 'cd "$0"; lftp -f "$1"', job.directory, file], environment=environment)


_FTPLIB = """
import ftplib, os, ssl, sys
class Implicit(ftplib.FTP_TLS):
    "TLS from the first octet: wraps the socket as soon as it is connected."
    _sock = None
    @property
    def sock(self):
        return self._sock
    @sock.setter
    def sock(self, value):
        if value is not None and not isinstance(value, ssl.SSLSocket):
            value = self.context.wrap_socket(value, server_hostname=self.host)
        self._sock = value
mode, host, port, passive, files, user, directory = sys.argv[1:]
os.chdir(directory)
ftp = (Implicit if mode == "implicit" else ftplib.FTP_TLS)(context=ssl.create_default_context(cafile="authority.pem"))
ftp.connect(host, int(port), timeout=30)
ftp.login(user, os.environ["PASSWORD"])
ftp.prot_p()
ftp.set_pasv(passive == "True")
def fetch(name, path, rest=0):
    with open(path, "ab") as file:
        ftp.retrbinary("RETR " + name, file.write, rest=rest or None)
def store(path, name, rest=0):
    with open(path, "rb") as file:
        file.seek(rest)
        ftp.storbinary("STOR " + name, file, rest=rest or None)
def names(path):
    with open(path, "w") as file:
        ftp.retrlines("LIST", lambda line: print(line, file=file))
names("listing")
store("large", "large")
fetch("large", "back")
store("large", "half", rest=ftp.size("half"))
fetch("large", "part", rest=os.path.getsize("part"))
os.mkdir("got")
for number in range(int(files)):
    name = f"small/{number:04}"
    store(name, name)
    fetch(name, f"got/{number:04}")
with ftp.transfercmd("RETR endless") as data:
    data.recv(100000)
    ftp.abort()
# It reads one reply.  Servers say more: what became of the transfer, and what became of ABOR.
ftp.putcmd("NOOP")
while not ftp.getmultiline().startswith("200"):
    pass
names("after")
ftp.quit()
"""


def ftplib(job: Job, active: bool) -> Command:
    words = [job.mode, HOST, str(job.port), str(not active), str(job.files), job.user, str(job.directory)]
    return Command(["python3", "-c", _FTPLIB, *words], environment=_login(job))


_FTP_SSL = """
cd "$0"
mkdir got
mkfifo aborting
options='{passive} -i -n -v -z secure -z verify=1 -z cacert=authority.pem {host} {port}'
ftp-ssl $options <script
ftp-ssl $options <aborting &
exec 9>aborting
cat abort >&9
# It creates the file when the transfer begins, and an interrupt aborts it.
for turn in $(seq 400); do [ -s head ] && break; sleep 0.05; done
kill -INT $!
exec 9>&-
wait $!
ftp-ssl $options <again
"""
_FTP_SSL_SCRIPT = """ls . listing
put large
get large back
restart {half}
put large half
restart {half}
get large part
cd small
lcd small
mput *
lcd ../got
"""


def ftp_ssl(job: Job, active: bool) -> Command:
    login = f"user {job.user} {job.password}\nbinary\n"
    # Pure-FTPd does not list names by a pattern, which mget asks for.
    names = "".join(f"get {_NAME.format(number)}\n" for number in range(job.files))
    job.write("script", login + _FTP_SSL_SCRIPT.format(half=job.octets // 2) + names)
    job.write("abort", f"{login}get endless head\n")
    job.write("again", f"{login}ls . after\n")
    script = _FTP_SSL.format(passive="" if active else "-p", host=HOST, port=job.port)
    return Command(["sh", "-c", script, job.directory], environment=_login(job))


def _login(job: Job) -> dict[str, str]:
    return {"USER": job.user, "PASSWORD": job.password}
