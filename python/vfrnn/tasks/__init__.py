"""Learning tasks of the recurrent-network literature, by name, and what trains on them."""

from __future__ import annotations

from collections.abc import Callable

from vfrnn.tasks.adding import Adding
from vfrnn.tasks.characters import Characters
from vfrnn.tasks.co2 import CarbonDioxide
from vfrnn.tasks.copying import Copying
from vfrnn.tasks.denoise import Denoise
from vfrnn.tasks.digits import Digits
from vfrnn.tasks.mnist import Mnist
from vfrnn.tasks.series import series
from vfrnn.tasks.task import Task, TaskOptions
from vfrnn.tasks.transport import Transport

TASKS: dict[str, Callable[[TaskOptions], Task]] = {
    "digits": Digits,
    "copying": Copying,
    "denoise": Denoise,
    "adding": Adding,
    "mnist": Mnist,
    "co2": CarbonDioxide,
    "characters": Characters,
    "transport": Transport,
    "series": series,
}

__all__ = [
    "TASKS",
    "Adding",
    "CarbonDioxide",
    "Characters",
    "Copying",
    "Denoise",
    "Digits",
    "Mnist",
    "Task",
    "TaskOptions",
    "Transport",
]
