"""Request bodies: JSON in, our own valid values out, or a Problem that names every fault at once."""

from collections import Counter
from functools import cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from actors.inventory import ON_HAND_MAX
from actors.order_check import LINES_MAX, MINOR_MAX, QUANTITY_MAX
from runtime.desk_types import NewItem, NewOrder
from runtime.edge.currencies import CURRENCIES
from runtime.edge.problems import Fault, Problem, shown
from runtime.edge.strict_json import JsonError, parse
from runtime.edge.usual_orders import usual_order
from runtime.faults import Action
from runtime.faults.fault import FOR_S


def _refusal(message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message})


def _readable(value: str) -> str:
    if not value.isprintable():
        raise _refusal("holds control, invisible or direction-changing characters; send plain text")
    return value


def _visible_ascii(value: str) -> str:
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise _refusal("holds something other than visible ASCII characters")
    return value


def _known_currency(value: str) -> str:
    if value not in CURRENCIES:
        hint = f"; write {value.upper()}" if value.upper() in CURRENCIES else ""
        raise _refusal(f'"{shown(value, 12)}" is no active ISO 4217 code{hint}')
    return value


Sku = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_visible_ascii)]
Token = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_visible_ascii)]
Customer = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_readable)]
Currency = Annotated[
    str, AfterValidator(_known_currency), Field(json_schema_extra={"pattern": "^[A-Z]{3}$"})
]
Minor = Annotated[int, Field(ge=1, le=MINOR_MAX)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Item(Strict):
    """One line. Prices are integers in the currency's minor unit (255 is 2.55 GBP)."""

    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)]
    unit_price_minor: Minor


class PlaceOrder(Strict):
    """An order. Each SKU stands on one line; `total_minor`, where it is sent, equals the sum of the lines."""

    customer_id: Customer
    currency: Currency
    items: Annotated[list[Item], Field(min_length=1, max_length=LINES_MAX)]
    payment_token: Token
    total_minor: Minor | None = None


@cache
def place_order_of(lines_max: int) -> type[PlaceOrder]:
    """An order that may have so many lines."""
    items = Annotated[list[Item], Field(min_length=1, max_length=lines_max)]
    return create_model(
        "PlaceOrder", __base__=PlaceOrder, __doc__=PlaceOrder.__doc__, items=(items, ...)
    )


class InjectFault(Strict):
    """A fault to arm: where, what, for whom (all that the point carries), how often, how long. `Fault` says more."""

    point: str
    action: Annotated[Action, Field(strict=False)]
    actor: str | None = None
    shard: int | None = None
    fact: str | None = None
    order: str | None = None
    times: int = 1
    probability: float = 1.0
    seed: int = 0
    for_s: float = FOR_S
    duration_s: float = 1.0
    code: int = 1


StockLevels = TypeAdapter(
    Annotated[
        dict[Sku, Annotated[int, Field(ge=0, le=ON_HAND_MAX)]],
        Field(min_length=1, max_length=10_000),
    ],
    config=ConfigDict(strict=True),
)


def new_order(body: bytes, order_id: str, lines_max: int = LINES_MAX) -> NewOrder:
    """The order that a client asks for."""
    return usual_order(body, order_id, lines_max) or read_any_order(body, order_id, lines_max)


def read_any_order(body: bytes, order_id: str, lines_max: int) -> NewOrder:
    """The order, or all that is wrong with it."""
    raw = parse_body(body)
    faults = _contradictions(raw)
    try:
        asked = place_order_of(lines_max).model_validate(raw)
    except ValidationError as error:
        faults = [*map(fault_of, error.errors(include_url=False, include_input=False)), *faults]
    if faults:
        raise unprocessable(faults)
    return NewOrder(
        order_id=order_id,
        customer_id=asked.customer_id,
        currency=asked.currency,
        items=tuple(NewItem(i.sku, i.quantity, i.unit_price_minor) for i in asked.items),
        payment_token=asked.payment_token,
    )


def stock_levels(body: bytes) -> dict[str, int]:
    """What an operator says is on hand, by SKU."""
    try:
        return StockLevels.validate_python(parse_body(body))
    except ValidationError as error:
        faults = list(map(fault_of, error.errors(include_url=False, include_input=False)))
        raise unprocessable(faults) from error


def parse_body(body: bytes) -> Any:
    try:
        return parse(body)
    except JsonError as error:
        raise Problem(400, str(error), kind="bad-json") from error


def _contradictions(raw: Any) -> list[Fault]:
    """What no single field can show, found even while other fields are wrong."""
    items = raw.get("items") if isinstance(raw, dict) else None
    lines = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    faults = [
        Fault("items", f'SKU "{shown(sku)}" stands on {times} lines; send each SKU once')
        for sku, times in Counter(
            line["sku"] for line in lines if isinstance(line.get("sku"), str)
        ).items()
        if times > 1
    ]
    amounts = [_amount(line.get("quantity"), line.get("unit_price_minor")) for line in lines]
    whole = [amount for amount in amounts if amount is not None]
    if len(whole) == len(amounts):  # Without every amount there is no total to speak of.
        faults += _total_faults(sum(whole), raw)
    return faults


def _amount(quantity: object, price: object) -> int | None:
    """A line's amount, or None where one of its fields is at fault itself."""
    if type(quantity) is not int or type(price) is not int:
        return None
    in_range = 1 <= quantity <= QUANTITY_MAX and 1 <= price <= MINOR_MAX
    return quantity * price if in_range else None


def _total_faults(total_minor: int, raw: Any) -> list[Fault]:
    if total_minor > MINOR_MAX:
        return [Fault("items", f"the total {total_minor} does not fit 64 bits")]
    claimed = raw.get("total_minor") if isinstance(raw, dict) else None
    if type(claimed) is int and claimed != total_minor:
        return [Fault("total_minor", f"is {claimed}, but the lines add up to {total_minor}")]
    return []


def unprocessable(faults: list[Fault]) -> Problem:
    count = "One thing is" if len(faults) == 1 else f"{len(faults)} things are"
    return Problem(
        422, f"{count} wrong with the body; see errors.", kind="invalid-body", faults=tuple(faults)
    )


def fault_of(error: ErrorDetails) -> Fault:
    match error["type"]:
        case "extra_forbidden":
            message = "is no field of this object; leave it out"
        case "missing":
            message = "is missing"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = "should be an object"
        case "string_unicode":
            message = "holds text that is no Unicode (half a surrogate pair)"
        case _:
            message = error["msg"]
    return Fault(_path(error["loc"]), message)


def _path(location: tuple[int | str, ...]) -> str:
    """A fault's place as a person writes it: `items[0].quantity`; the whole body is `body`."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{shown(step)}" if path else shown(step)
    return path or "body"
