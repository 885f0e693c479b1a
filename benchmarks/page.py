"""Time and size of `./lab page`: `python benchmarks/page.py [--nodes N]`.

1. `./lab page cfos-egress --plan` takes at most twice as long as `./lab plan cfos-egress`: the plan itself, and once
   more that time for the page.
2. The page of a lab of 100 nodes with 300 pods is smaller than 5 MB.
3. Headless Chromium shows the first picture of that page in less than 2 s; left out, with the reason, without Chromium.

CPU seconds count, because other work of the computer slows down wall times. Exit code 1 if a bound is exceeded.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ratio import report  # noqa: E402
from components.spec.models import Lab  # noqa: E402
from engine.graph import Graph  # noqa: E402
from engine.run import run_program  # noqa: E402
from page.content.source import Source  # noqa: E402
from page.document import Page, html  # noqa: E402
from page.foreseen.lab import foresee  # noqa: E402
from tests.verify.replica_labs import of_size  # noqa: E402

STACK = "cfos-egress"
RUNS = 3
PODS_PER_NODE = 3
MOST_BYTES = 5_000_000
MOST_SECONDS_TO_PAINT = 2.0


def command(*words: str) -> float:
    """CPU seconds of a command of `./lab`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "cli", *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def beside_the_plan() -> float:
    """How long the page of a small lab takes beside its plan, as a part of the plan's time; the best of some runs."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            plan, page = command("plan", STACK), command("page", STACK, "--plan", "--out", f"{folder}/page.html")
            print(f"{STACK}: ./lab plan {plan:.2f} s CPU, ./lab page {page:.2f} s CPU")
            found.append((page - plan) / plan)
    return min(found)


def large_page(stack: str, lab: Lab, config: dict[str, str]) -> tuple[str, float, float]:
    """The page from the plan, and the CPU seconds of the plan and of the page beside it."""
    began = time.process_time()
    deployment = run_program(ROOT / "__main__.py", stack=stack, config=config, timeout_seconds=600)
    graph = Graph.of(deployment.to_json()["resources"])
    planned = time.process_time()
    source = Source(stack, "plan", *foresee(lab, stack))
    text = html(Page(source, lab, graph, ROOT / "docs" / "labs" / f"{stack}.md"))
    return text, planned - began, time.process_time() - planned


def seconds_to_paint(text: str) -> float | str:
    """Until Chromium shows something; or why that cannot be measured."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        return "chromium and chromedriver are not installed"
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        return "selenium is not installed"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    # Chromium leaves a folder in TMPDIR.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        service = Service(driver, env=os.environ | {"TMPDIR": folder})
        chromium = webdriver.Chrome(options=options, service=service)
        try:
            path = Path(folder, "page.html")
            path.write_text(text, encoding="utf-8")
            chromium.get(path.as_uri())
            script = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
            return float(chromium.execute_script(script)) / 1000
        finally:
            chromium.quit()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=100)
    nodes = parser.parse_args().nodes
    broken = report("page beside the plan / plan", beside_the_plan(), 1.0)
    lab = of_size(nodes, PODS_PER_NODE * nodes)
    config = {"cni-lab:lab": lab.model_dump_json(by_alias=True), "aws:region": "us-west-2"}
    text, plan_seconds, page_seconds = large_page("large", lab, config)
    print(f"{nodes} nodes: plan {plan_seconds:.2f} s CPU, page {page_seconds:.2f} s CPU")
    broken |= report("size, MB", len(text.encode()) / 1e6, MOST_BYTES / 1e6)
    paint = seconds_to_paint(text)
    if isinstance(paint, str):
        print(f"first picture: not measured: {paint}")
        return int(broken)
    return int(broken | report("first picture, s", paint, MOST_SECONDS_TO_PAINT))


if __name__ == "__main__":
    sys.exit(main())
