"""lib.sh, run by bash: what an interruption at any command leaves, the manifest, the lock, and downloads."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.node.script import File, compose, read_script
from tests.support.steps import with_own_lock

OLD, NEW = "old\n", "new α\n\nlast line has spaces  \n"


class Bash:
    """Runs programs with their state under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.etc = root / "etc"

    def environment(self) -> dict[str, str]:
        return os.environ | {"CNI_LAB_STATE": str(self.state), "CNI_LAB_LOCK": str(self.root / "lock")}

    def run(self, program: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-s"], input=program, env=self.environment() | extra, capture_output=True, text=True, timeout=60
        )

    def lib(self, program: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return self.run(f"{read_script('lib.sh')}\nPHASE=test\n{program}\n", **extra)

    def files(self, files: dict[str, str], cut: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a step's write_files. `cut`: kill it before its n-th command."""
        program = compose("test", {}, [File(str(self.etc / name), text) for name, text in files.items()], [])
        trap = f"commands=0; set -T; trap '((++commands != {cut})) || kill -9 $$' DEBUG\n" if cut else ""
        program = with_own_lock(self.root, program)
        return self.run(program.replace("} </dev/null", f"{trap}write_files\n}} </dev/null"))

    def manifest(self) -> set[str]:
        path = self.state / "files" / "test"
        return {Path(line).name for line in path.read_text().splitlines()} if path.exists() else set()

    def left(self) -> frozenset[tuple[str, int, str]]:
        """Everything under `root`: path, mode and content, but for the lock, which names a process. Temporary files of
        one purpose have one name."""
        files = [path for path in self.root.rglob("*") if path.is_file() and path != self.root / "lock"]
        return frozenset(
            (re.sub(r"(/\.cni-lab\..*\.)\w+$", r"\1XXXXXX", str(path)), path.stat().st_mode, path.read_text())
            for path in files
        )

    def there(self) -> dict[str, str]:
        return {p.name: p.read_text() for p in self.etc.iterdir()} if self.etc.exists() else {}


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Bash]:
    """In memory if possible, because the scripts sync every file that they write."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield Bash(tmp_path)
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Bash(Path(folder))


def test_write_file(bash: Bash) -> None:
    path = bash.etc / "a b" / "c.conf"
    program = f"write_file {shlex.quote(str(path))} 0640 <<'END'\n{NEW}END\n"
    assert bash.lib(program).returncode == 0
    assert path.read_text() == NEW
    assert path.stat().st_mode & 0o777 == 0o640
    first = path.stat()

    again = bash.lib(program)
    assert again.returncode == 0 and "wrote" not in again.stderr
    assert path.stat() == first

    assert bash.lib(program.replace("0640", "0600")).returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == NEW
    assert list(path.parent.iterdir()) == [path]


def test_write_file_replaces_a_link_and_refuses_a_directory(bash: Bash) -> None:
    bash.etc.mkdir()
    (bash.etc / "theirs").write_text(OLD)
    (bash.etc / "link").symlink_to(bash.etc / "theirs")
    assert bash.files({"link": NEW}).returncode == 0
    assert bash.there() == {"theirs": OLD, "link": NEW}
    assert not (bash.etc / "link").is_symlink()

    (bash.etc / "folder").mkdir()
    done = bash.files({"folder": NEW})
    assert done.returncode == 1
    assert "folder is a directory" in done.stderr and "move it away" in done.stderr


def test_a_secret_is_never_readable_by_others(bash: Bash) -> None:
    """Not even while it is written: the temporary file has mode 0600 before it is renamed."""
    program = f'mv() {{ stat -c %a -- "$3"; command mv "$@"; }}\nwrite_file {bash.etc}/key 0600 <<<hush-hush'
    done = bash.lib(program)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"600"}
    assert "hush-hush" not in done.stdout + done.stderr


def test_a_file_is_on_the_disk_before_it_has_its_name(bash: Bash) -> None:
    """And its name, before `replace` ends: after a power cut the file is old or new, and what was reported stays."""
    said = 'sync() { echo "sync ${2##*/}"; }; mv() { echo "mv ${3##*/} ${4##*/}"; command mv "$@"; }; '
    done = bash.lib(f"{said}replace {bash.etc}/conf 0644 new; echo done")
    steps = re.sub(r"\.cni-lab\.conf\.\w{6}", "TEMPORARY", done.stdout).splitlines()
    assert steps == ["sync TEMPORARY", "mv TEMPORARY conf", "sync etc", "done"]


@pytest.mark.parametrize("broken", ["printf", "chmod", "sync", "mv"])
def test_a_file_that_cannot_be_written_stays_as_it_was(bash: Bash, broken: str) -> None:
    """Whichever command fails: the old content, no temporary file, and what to do."""
    bash.etc.mkdir()
    (bash.etc / "conf").write_text(OLD)
    # printf also prints the messages of `log` and `fail`.
    fails = f'{broken}() {{ if [[ $1 != cni-lab* ]]; then return 1; else builtin {broken} "$@"; fi; }}; '
    done = bash.lib(f"{fails}replace {bash.etc}/conf 0644 new; echo done")
    assert done.returncode == 1 and done.stdout == ""
    assert f"cannot write {bash.etc}/conf, which is unchanged: free some space in {bash.etc}" in done.stderr
    assert bash.there() == {"conf": OLD}


def test_a_directory_that_takes_no_file_is_named(bash: Bash) -> None:
    done = bash.lib(f"mktemp() {{ return 1; }}; replace {bash.etc}/conf 0644 new; echo done")
    assert done.returncode == 1 and done.stdout == ""
    assert f"cannot write in {bash.etc}: free some space there" in done.stderr
    done = bash.lib(f"touch {bash.root}/file; replace {bash.root}/file/conf 0644 new; echo done")
    assert done.returncode == 1 and f"cannot make {bash.root}/file: see the line above" in done.stderr


def test_interrupted_at_every_command(bash: Bash) -> None:
    """Each file is old or new and never in between. The next run finishes, and knows every file that was written."""
    cut, found = 0, set[frozenset[tuple[str, int, str]]]()
    while True:
        cut += 1
        bash.etc.mkdir(exist_ok=True)
        for path in bash.etc.iterdir():
            path.unlink()
        (bash.etc / "changing").write_text(OLD)
        for path in (bash.state / "files" / "test", bash.state / "changed"):
            path.unlink(missing_ok=True)

        done = bash.files({"fresh": NEW, "changing": NEW}, cut=cut)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        whole = {name: text for name, text in bash.there().items() if not name.startswith(".")}
        assert whole.get("changing") in (OLD, NEW)
        assert whole.get("fresh") in (None, NEW)
        written = {name for name, text in whole.items() if text == NEW}
        assert written <= bash.manifest(), f"cut {cut} forgot a file"
        noted = (bash.state / "changed").read_text() if written else ""
        assert all(name in noted for name in written), f"cut {cut} forgot a change"

        # What the next run does follows from what it finds, and most cuts leave the same as the one before.
        if (left := bash.left()) in found:
            continue
        found.add(left)
        # The next run wants one file less. It removes what the first may have written, and leaves no temporary files.
        done = bash.files({"changing": NEW})
        assert done.returncode == 0, done.stderr
        assert {n: t for n, t in bash.there().items() if not n.startswith(".cni-lab.fresh")} == {"changing": NEW}
        assert bash.manifest() == {"changing"}
    assert cut > 100 and len(found) > 10


def test_keep_files_removes_ours_only(bash: Bash) -> None:
    bash.etc.mkdir()
    (bash.etc / "theirs").write_text(OLD)
    (bash.etc / "same").write_text(NEW)
    (bash.etc / "same").chmod(0o644)
    assert bash.files({"ours": NEW, "same": NEW}).returncode == 0
    assert bash.manifest() == {"ours"}
    done = bash.files({})
    assert done.returncode == 0 and "removed" in done.stderr
    assert bash.there() == {"theirs": OLD, "same": NEW}
    assert bash.manifest() == set()


def test_keep_files_after_somebody_removed_one(bash: Bash) -> None:
    assert bash.files({"one": NEW, "two": NEW}).returncode == 0
    (bash.etc / "one").unlink()
    assert bash.files({"two": NEW}).returncode == 0
    assert bash.there() == {"two": NEW} and bash.manifest() == {"two"}


def test_phases_have_manifests_of_their_own(bash: Bash) -> None:
    assert bash.files({"ours": NEW}).returncode == 0
    assert (
        bash.lib(f"PHASE=other write_file {bash.etc}/theirs 0644 <<<x; keep_files other {bash.etc}/theirs").returncode
        == 0
    )
    assert bash.files({}).returncode == 0
    assert bash.there() == {"theirs": "x\n"}


def test_changed_until_settled(bash: Bash) -> None:
    a, b = bash.etc / "a", bash.etc / "b b"
    assert bash.files({"a": NEW, "b b": NEW}).returncode == 0
    ask = f"changed {a} && echo a; changed {shlex.quote(str(b))} && echo b; changed {bash.etc}/c && echo c; true"
    assert bash.lib(ask).stdout.split() == ["a", "b"]
    assert bash.lib(f"settled {shlex.quote(str(b))} {bash.etc}/c").returncode == 0
    assert bash.lib(ask).stdout.split() == ["a"]
    assert bash.lib(f"settled {a}").returncode == 0
    assert bash.lib(ask).stdout.split() == []
    assert bash.files({"b b": NEW}).returncode == 0
    assert bash.lib(ask).stdout.split() == ["a"], "a removed file is a change, too"


def test_steps_at_once_share_the_list_of_changes(bash: Bash) -> None:
    program = "PHASE=p$1; for i in 1 2 3 4 5; do write_file {0}/$1-$i 0644 <<<x; settled {0}/$1-$((i - 1)); done"
    lib = read_script("lib.sh") + program.format(bash.etc)
    running = [
        subprocess.Popen(
            ["bash", "-c", lib, "-", str(n)], env=bash.environment() | {"CNI_LAB_LOCK": f"{bash.root}/{n}"}
        )
        for n in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    assert sorted((bash.state / "changed").read_text().split()) == [f"{bash.etc}/{n}-5" for n in range(4)]


def test_wanted(bash: Bash) -> None:
    files = [File("/nowhere/a", NEW), File("/nowhere/b", "b\n")]
    program = with_own_lock(bash.root, compose("test", {}, files, []))
    program = program.replace("} </dev/null", "wanted /nowhere/a; echo -; wanted /nowhere/c\n} </dev/null")
    assert bash.run(program).stdout == NEW + "-\n"


def test_full_disk(bash: Bash) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    bash.etc.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(bash.etc)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        (bash.etc / "conf").write_text(OLD)
        done = bash.files({"conf": "x" * 100_000})
        assert done.returncode == 1
        assert f"cannot write {bash.etc}/conf, which is unchanged: free some space" in done.stderr
        assert bash.there() == {"conf": OLD}
        assert bash.files({"conf": NEW}).returncode == 0
        assert bash.there() == {"conf": NEW}
    finally:
        subprocess.run(["umount", str(bash.etc)], check=True)


def test_fetch(bash: Bash) -> None:
    bash.root.mkdir(exist_ok=True)
    source, dest = bash.root / "source", bash.etc / "dest"
    source.write_text(NEW)
    good = hashlib.sha256(NEW.encode()).hexdigest()
    assert bash.lib(f"fetch file://{source} {good} {dest}").returncode == 0
    assert dest.read_text() == NEW

    source.unlink()
    assert bash.lib(f"fetch file://{source} {good} {dest}").returncode == 0, "a file that is right is not fetched"

    source.write_text(OLD)
    done = bash.lib(f"fetch file://{source} {hashlib.sha256(b'?').hexdigest()} {dest}")
    assert done.returncode == 1 and "has SHA-256" in done.stderr and "wanted" in done.stderr
    assert bash.there() == {"dest": NEW}


def test_fetch_is_bounded(bash: Bash) -> None:
    done = bash.lib(f"sleep() {{ :; }}; fetch http://127.0.0.1:1/x 00 {bash.etc}/dest")
    assert done.returncode == 1
    assert done.stderr.count("curl:") == 5
    assert "cannot be fetched" in done.stderr and "mirror" in done.stderr
    assert bash.there() == {}


def test_lock(bash: Bash) -> None:
    """The second waits for the first. When its wait is over, it names the process that has the lock."""
    bash.root.mkdir(exist_ok=True)
    with subprocess.Popen(
        ["bash", "-c", f"{read_script('lib.sh')}\necho ready; sleep 3"],
        env=bash.environment(), stdout=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout is not None and first.stdout.readline() == "ready\n"
        refused = bash.lib("echo never", CNI_LAB_LOCK_WAIT="1")
        assert refused.returncode == 1 and refused.stdout == ""
        assert f"process {first.pid}" in refused.stderr and "wait for it or end it" in refused.stderr
        begin = time.monotonic()
        assert bash.lib("echo mine").stdout == "mine\n"
        assert time.monotonic() - begin > 1


def test_a_killed_runs_child_keeps_the_lock(bash: Bash) -> None:
    """The script is killed and its child runs on: the next step waits for the child."""
    with subprocess.Popen(
        ["bash", "-c", f"{read_script('lib.sh')}\nsleep 4 & echo ready; wait"],
        env=bash.environment(), stdout=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout is not None and first.stdout.readline() == "ready\n"
        first.kill()
        assert bash.lib("echo never", CNI_LAB_LOCK_WAIT="1").returncode == 1
        assert bash.lib("echo mine").stdout == "mine\n"


def test_a_script_that_a_step_calls_has_its_lock(bash: Bash) -> None:
    inner = bash.root / "inner.sh"
    inner.write_text(read_script("lib.sh") + "exec 9>&-\necho inner\n")
    done = bash.lib(f"CNI_LAB_LOCK_WAIT=1 bash {inner}; flock -n {bash.root}/lock true || echo still locked")
    assert done.stdout.splitlines() == ["inner", "still locked"], done.stderr


def test_wait_for(bash: Bash) -> None:
    done = bash.lib("busy() { echo not yet; return 1; }; wait_for 1 'the thing' busy; echo never")
    assert done.returncode == 1 and done.stdout == ""
    assert "the thing: not within 1 s. Last answer: not yet" in done.stderr
    assert bash.lib("wait_for 1 'the thing' true && echo there").stdout == "there\n"


def test_a_wait_says_what_is_missing_when_that_changes(bash: Bash) -> None:
    """Silent at first; then a line for each answer that is another one, on one line; the end has the last answer."""
    count = f"{bash.root}/count"
    busy = (
        f"busy() {{ local n; n=$(cat {count}); echo $((n + 1)) >{count}; "
        "case $n in [01]) echo first ;; [2-4]) printf 'second\n  line\n' ;; *) echo third ;; esac; return 1; }; "
    )
    bash.root.mkdir(exist_ok=True)
    Path(count).write_text("0\n")
    wait = "(wait_for 11 'the thing' busy) || echo ended"
    done = bash.lib(busy + wait, QUIET_SECONDS="1", REPEAT_SECONDS="4")
    assert done.stdout == "ended\n"
    lines = [re.sub(r"since \d+ s", "since N s", line) for line in done.stderr.splitlines()]
    said = [line.partition("for the thing: ")[2] for line in lines[:-1]]
    assert lines[-1] == "cni-lab: error: the thing: not within 11 s. Last answer: third"
    assert all(line.startswith("cni-lab: waiting since N s for the thing: ") for line in lines[:-1])
    assert said in (["first", "second;   line", "third"], ["first", "third"], ["second;   line", "third"])
    Path(count).write_text("0\n")
    seldom = bash.lib(busy + wait, QUIET_SECONDS="1")
    assert len(re.findall("waiting since", seldom.stderr)) == 1, "then nothing for 30 s, whatever changes"
    silent = bash.lib("(wait_for 2 'the thing' false) || echo ended", QUIET_SECONDS="30")
    assert silent.stderr == "cni-lab: error: the thing: not within 2 s. Last answer: none\n"


def test_a_wait_ends_early_where_waiting_does_not_help(bash: Bash) -> None:
    begin = time.monotonic()
    done = bash.lib("never() { echo the disk is full; return \"$HOPELESS\"; }; wait_for 300 'the thing' never")
    assert time.monotonic() - begin < 30 and done.returncode == 1
    assert "the thing: waiting longer does not help. Last answer: the disk is full" in done.stderr


def test_a_long_command_shows_what_it_does(bash: Bash) -> None:
    """The last line of its log, without secrets, and the reason; its own output stays in the log."""
    program = (
        "systemctl() { echo failed; return 3; }; journalctl() { "
        'echo \'E1125 21:00:00.1 99 pod_workers.go:1] "Error syncing pod" err="no image"\'; }; '
        "kubeadm() { echo '[wait] token abcdef.0123456789abcdef'; sleep 5; }; "
        f"kubeadm_run {bash.root}/log/x.log init && echo done; sleep 2; pgrep -P $$ -x sleep || echo nothing is left"
    )
    done = bash.lib(program, QUIET_SECONDS="1")
    assert done.stdout == "done\nnothing is left\n", done.stderr
    [line] = done.stderr.splitlines()
    assert re.fullmatch(r"cni-lab: kubeadm runs since \d+ s: .*", line) and "abcdef.0123" not in line
    assert line.endswith('[wait] token <token>; kubelet is failed; kubelet: "Error syncing pod" err="no image"')


@pytest.mark.parametrize(("status", "warned"), [(0, False), (2, False), (1, True)])
def test_the_first_boot_is_awaited_and_its_state_is_shown(bash: Bash, status: int, warned: bool) -> None:
    """cloud-init's own --wait prints dots. 2: done, with errors that it could recover from."""
    bash.root.mkdir(exist_ok=True)
    text = read_script("prepare.sh")
    functions = text[text.index("first_boot_done() {") : text.index("# --- Name")]
    boots = (
        f"NODE_NAME=n; cloud-init() {{ echo $1 >>{bash.root}/asked; "
        f"if (($(wc -l <{bash.root}/asked) < 5)); then echo 'status: running'; echo 'detail: modules-final'; "
        f"else echo 'status: done'; return {status}; fi; }}; "
    )
    done = bash.lib(f"{functions}\n{boots}wait_for_first_boot; echo on", QUIET_SECONDS="1")
    assert done.stdout == "on\n", done.stderr
    assert "for cloud-init on n (see /var/log/cloud-init-output.log there): status: running; detail: mod" in done.stderr
    assert (f"cloud-init ended with status {status}" in done.stderr) == warned


def test_retry(bash: Bash) -> None:
    count = "n=0; sleep() { :; }; third() { ((++n == 3)); }; "
    assert bash.lib(count + "retry 3 third && echo $n").stdout == "3\n"
    done = bash.lib(count + "retry 2 third || echo failed with $? after $n")
    assert done.stdout == "failed with 1 after 2\n"
    assert done.stderr.count("try ") == 1


def test_a_failure_shows_no_secret(bash: Bash) -> None:
    token, key, digest = "abcdef.0123456789abcdef", "ab" * 32, "cd" * 32
    tell = f"echo token={token} 'key: {key}' sha256:{digest}; exit 3"
    done = bash.lib(f"logged {bash.root}/log/x.log bash -c {shlex.quote(tell)} || echo status $?")
    assert done.stdout == "status 3\n"
    assert token not in done.stderr and key not in done.stderr
    assert "<token>" in done.stderr and "<key>" in done.stderr and f"sha256:{digest}" in done.stderr
    log = bash.root / "log" / "x.log"
    assert log.stat().st_mode & 0o777 == 0o600 and token in log.read_text()


def test_a_program_that_arrives_incomplete_does_nothing(bash: Bash) -> None:
    """The connection is cut while the text is on its way: bash runs none of it."""
    program = compose("test", {}, [File(str(bash.etc / "a"), NEW)], ["reset.sh"])
    for end in range(0, len(program) - 5, 97):
        bash.run(program[:end])
        assert not bash.etc.exists() and not bash.state.exists(), f"cut after {end} characters"
