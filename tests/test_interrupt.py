"""An interrupt by the engine, or Ctrl-C, ends the program without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from components.interrupt import end_quietly_on_interrupt
from tests.support.graphs import ROOT

# As the language host runs a program: on an event loop of the main thread.
PROGRAM = """
import asyncio
from components.interrupt import end_quietly_on_interrupt
end_quietly_on_interrupt()
async def wait():
    print("started", flush=True)
    await asyncio.sleep(60)
asyncio.new_event_loop().run_until_complete(wait())
"""


def test_the_program_ends_without_a_word() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (32, "")


def test_in_another_thread_the_handler_stays_as_it_is() -> None:
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=end_quietly_on_interrupt)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
