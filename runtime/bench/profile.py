"""The rows that say where an order's time goes, at full load and alone."""

from collections.abc import Awaitable, Callable

from runtime.bench.load import Load
from runtime.bench.parts import shares
from runtime.bench.plan import Figures, Plan
from runtime.bench.rows import open_shop, since


async def profile(plan: Plan) -> Figures:
    """Shares of an order's CPU time by part of the program, at full load."""

    async def place(load: Load) -> int:
        await load.all_at_once(plan.orders, in_flight=plan.in_flight)
        return plan.orders

    return await _profile(plan, place)


async def profile_alone(plan: Plan) -> Figures:
    """The same at a fixed rate, where each order has the shop to itself."""

    async def place(load: Load) -> int:
        await load.paced(plan.paced, plan.rate_hz)
        return plan.paced

    return await _profile(plan, place)


async def _profile(plan: Plan, place: Callable[[Load], Awaitable[int]]) -> Figures:
    """Once without the profiler, for the time it takes; once more with it, for what it is made of."""
    async with open_shop(plan) as (instance, load, _):
        before = instance.usage()
        orders = await place(load)
        used = since(before, instance.usage(), orders)
        await instance.channel.command("start profiler")
        await place(load)
        seconds = await instance.channel.command("stop profiler")
        await load.check()
    cpu_ms = used["cpu_ms_per_order_runtime"]
    return {"orders": orders, "cpu_ms_per_order": cpu_ms, "parts": shares(seconds, cpu_ms)}
