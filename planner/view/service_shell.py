"""What all pages of the running planner share: the HTML around them and their files.

Pure but for the files that ship beside it.
"""

from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from planner.model import Mode, Service
from planner.view.notation import milliseconds, share
from planner.view.service_chart import clock

# How often an open page asks for news: a quarter of the interval, within bounds [s].
ASK_LEAST_S, ASK_MOST_S = 1.0, 15.0

MODES: Final = {
    Mode.OFF: "Off: nothing is decided",
    Mode.RECOMMEND: "Recommend: nothing is written",
    Mode.ACT: "Act: targets are scaled",
}


@cache
def asset(name: str) -> str:
    """Return the text of a file of the page."""
    return (files("planner.view") / name).read_text(encoding="utf-8")


def shell(title: str, root: str, interval_s: float, body: str) -> str:
    """Return a whole page.

    Parameters
    ----------
    title
        Its title.
    root
        Relative way from the page to the site's top: it may be behind a path.
    interval_s
        Time between two decisions [s].
    body
        What stands on it, as HTML.
    """
    every_s = min(max(interval_s / 4.0, ASK_LEAST_S), ASK_MOST_S)
    return Template(asset("service_page.html")).substitute(
        title=escape(title), root=root, every_s=f"{every_s:g}", body=body
    )


def promise(service: Service) -> str:
    """Return the SLA in words."""
    sla = service.sla
    told = (
        f"{share(sla.attainment_ratio)} of requests with TTFT at most {milliseconds(sla.ttft_s)} "
        f"and ITL at most {milliseconds(sla.itl_s)}"
    )
    if sla.max_input_tokens is None:
        return told
    return f"{told}, prompts of up to {sla.max_input_tokens:,} tokens"


def time_tag(at_s: float) -> str:
    """Return a time of day that the script turns into an age."""
    return f'<time data-at="{at_s:.0f}">{clock(at_s)}</time>'
