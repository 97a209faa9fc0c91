"""Processes whose launcher has been killed."""

import os
import signal
import time

from tossctr.cluster import parent


def test_a_process_gets_sigterm_when_its_launcher_has_ended(monkeypatch):
    monkeypatch.setattr(parent, "POLL_SECONDS", 0.01)
    told, tell = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, lambda *_: (os.write(tell, b"stopped"), os._exit(0)))
            parent.end_with_parent(os.getppid())
            os.write(tell, b"watching, ")
            time.sleep(30)
            os._exit(1)
        time.sleep(30)
        os._exit(1)
    os.close(tell)
    assert os.read(told, 100) == b"watching, "
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    assert os.read(told, 100) == b"stopped"
    os.close(told)


def test_a_process_that_ignores_sigterm_is_ended(monkeypatch):
    monkeypatch.setattr(parent, "STOP_SECONDS", 0.05)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        parent.end_with_parent(1 << 22)  # not our parent: it is gone
        time.sleep(30)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == parent.LOST
