"""What the answers look like, for /openapi.json; the requests are in `bodies`. Tests hold real answers to these."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from actors.inventory import ON_HAND_MAX
from runtime.faults import Action

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Status = Literal["pending", "reserved", "needs_attention", "confirmed", "rejected", "cancelled"]


class Accepted(BaseModel):
    """The order is durable; follow the Location to see what becomes of it."""

    order_id: str
    status: Status


class Money(BaseModel):
    minor: int
    currency: str


class LineView(BaseModel):
    sku: str
    quantity: int
    unit_price_minor: int


class PaymentView(BaseModel):
    status: str
    charge_id: str | None
    refund_id: str | None


class ReservationView(BaseModel):
    status: str
    expires_at: Instant


class EventView(BaseModel):
    at: Instant
    event: str
    status: Status


class OrderView(BaseModel):
    """One order as it stands, and how it came there. One that nobody has taken up yet shows the first three alone."""

    order_id: str
    status: Status
    version: int
    reason: str | None = None
    customer_id: str = ""
    items: list[LineView] = []
    total: Money | None = None
    payment: PaymentView | None = None
    reservation: ReservationView | None = None
    history: list[EventView] = []
    trace_id: str | None = None


class FaultView(BaseModel):
    """One fault: a field such as `items[0].quantity`, or `body` for the whole."""

    field: str
    message: str


class ProblemView(BaseModel):
    """RFC 9457. `errors` names every fault found in a body; `state` and `reasons` stand where they apply."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FaultView] = []
    state: Status | None = None
    reasons: list[str] = []
    trace_id: str = ""


class Probe(BaseModel):
    status: Literal["ok"]


class StockView(BaseModel):
    initial: int
    on_hand: int
    reserved: int
    available: int
    sold: int


class Levels(BaseModel):
    """Units on hand, by SKU."""

    model_config = {"extra": "allow"}
    __pydantic_extra__: dict[str, Annotated[int, Field(ge=0, le=ON_HAND_MAX)]]


class StockBySku(BaseModel):
    """Every stock item, by SKU."""

    model_config = {"extra": "allow"}
    __pydantic_extra__: dict[str, StockView]


class PointView(BaseModel):
    """One failpoint: where it is, which selectors mean something there, and which actions are possible."""

    name: str
    where: str
    carries: list[Literal["actor", "shard", "fact", "order"]]
    actions: list[Action]


class ArmedView(BaseModel):
    """One fault that is armed: what was asked for; how often it was met, and has fired; when it ends."""

    id: str
    point: str
    action: Action
    actor: str | None = None
    shard: int | None = None
    fact: str | None = None
    order: str | None = None
    times: int
    probability: float
    seed: int
    duration_s: float | None = None
    code: int | None = None
    met: int
    fired: int
    ends_in_s: float


class FaultsView(BaseModel):
    points: list[PointView]
    facts: list[str]
    armed: list[ArmedView]


ANSWERS: tuple[type[BaseModel], ...] = (Accepted, OrderView, ProblemView, Probe)
ADMIN_ANSWERS: tuple[type[BaseModel], ...] = (ProblemView, StockBySku)
FAULT_ANSWERS: tuple[type[BaseModel], ...] = (FaultsView, ArmedView)


def ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
