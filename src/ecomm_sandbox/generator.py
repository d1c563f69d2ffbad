"""A made-up shop that behaves like one: the same seed gives the same rows, to the byte.

`generate` goes through the days of a shop and gives for each the rows that were new or changed on it, as an application
writes them. Pure: no clock, no input and output. What it holds to:

* Orders follow the week, the hour, the season and a slow growth. Baskets are log-normal, products Zipf-like.
* About a quarter of the orders are guests' (no customer); a few guests make an account days later.
* Some orders come back days later as a cancellation (`C…`, negative quantities); a few documents correct the books
  (`A…`).
* Products are renamed and repriced, customers move, and lines are corrected days after they were ordered: such a row's
  `updated_at` is on the later day, everything else of the past stays.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.dates import BusinessDate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from zoneinfo import ZoneInfo

__all__ = ["COUNTRIES", "Day", "Plan", "generate"]

COUNTRIES: Final[Mapping[str, float]] = {
    "Vietnam": 62,
    "Thailand": 12,
    "Singapore": 9,
    "Malaysia": 8,
    "Japan": 6,
    "Côte d'Ivoire": 3,
}
"""Share of customers by country, unless told otherwise."""

_WEEK: Final = (0.95, 0.92, 0.96, 1.00, 1.12, 1.20, 0.85)  # Monday first
_HOURS: Final = (2, 1, 1, 1, 1, 2, 4, 8, 14, 20, 24, 26, 30, 24, 20, 20, 20, 22, 26, 32, 36, 30, 18, 8)
_SEASON: Final = {11: 1.35, 12: 1.5, 1: 0.85, 2: 0.8}
_GROWTH: Final = 0.0008  # a day: about a third a year

_GUESTS: Final = 0.25
_NEW_CUSTOMERS: Final = 0.3  # of orders with an account
_RETURNS: Final = 0.06
_CORRECTED: Final = 0.02
_GUEST_REGISTERS: Final = 0.02
_ADJUSTED: Final = 0.004
_RENAMED: Final = 0.001  # of the products, a day
_REPRICED: Final = 0.004
_MOVED: Final = 0.001  # of the customers, a day
_DOZEN: Final = 12  # from here on, a piece is cheaper
_NO_EMAIL: Final = 0.06

_ADJECTIVES: Final = (
    "Red",
    "Blue",
    "Vintage",
    "Bamboo",
    "Café",
    "Mini",
    "Folding",
    "Ceramic",
    "Lacquered",
    "Silk",
    "Glass",
    "Jumbo",
)
_THINGS: Final = (
    "Lantern",
    "Tea Set",
    "Lunch Box",
    "Mug",
    "Cushion",
    "Basket",
    "Notebook",
    "Alarm Clock",
    "Chopsticks",
    "Bánh Mì Board",
)
_DETAILS: Final = ("", "", "", ", Set of 6", ', 9" Wide', " (Large)", ", Boxed", " — Limited", " 50% Cotton")

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What shop to make: so many days, the last one `until`, about that many orders a day."""

    days: int
    until: date
    zone: ZoneInfo
    orders_per_day: float = 100
    seed: int = 0
    countries: Mapping[str, float] = field(default_factory=lambda: COUNTRIES)
    products: int = 400


@dataclass(slots=True)
class Day:
    """Rows that were new or changed on a day, by table, their columns as in `schema.sql`. Times are in UTC.

    A row that changed twice is in it twice, the newer one later.
    """

    day: date
    customers: list[Row] = field(default_factory=list)
    products: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)
    order_items: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Product:
    product_id: str
    description: str
    price: Decimal
    created: datetime

    def row(self, now: datetime) -> Row:
        return (self.product_id, self.description, self.price, self.created, now)


@dataclass(frozen=True, slots=True)
class _Customer:
    customer_id: int
    email: str | None
    country: str
    created: datetime

    def row(self, now: datetime) -> Row:
        return (self.customer_id, self.email, self.country, self.created, now)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    product_id: str
    quantity: int
    price: Decimal


@dataclass(slots=True)
class _Order:
    order_id: str
    customer_id: int | None
    status: str
    at: datetime
    lines: list[_Line]

    def row(self, now: datetime) -> Row:
        return (self.order_id, self.customer_id, self.status, self.at, self.at, now)

    def line_row(self, line: _Line, now: datetime) -> Row:
        return (self.order_id, line.number, line.product_id, line.quantity, line.price, self.at, now)


def generate(plan: Plan) -> Iterator[Day]:
    """Give the days of a shop in order. A shorter plan that begins on the same day is the beginning of a longer one."""
    shop = _Shop(plan)
    first = plan.until - timedelta(days=plan.days - 1)
    for index in range(plan.days):
        yield shop.live(first + timedelta(days=index), index)


class _Shop:
    """What the shop knows, as the days go by."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = Random(plan.seed)
        self._products: list[_Product] = []
        self._customers: list[_Customer] = []
        self._popularity = list(itertools.accumulate(1 / (rank + 3) ** 0.9 for rank in range(plan.products)))
        self._hours = list(itertools.accumulate(_HOURS))
        self._countries = list(plan.countries)
        self._shares = list(itertools.accumulate(plan.countries.values()))
        self._returns: dict[date, list[_Order]] = defaultdict(list)
        self._corrections: dict[date, list[_Order]] = defaultdict(list)
        self._numbers = itertools.count(100_001)
        self._start = self._length = 0.0

    def live(self, today: date, index: int) -> Day:
        """Let a day pass."""
        start = BusinessDate(today).starts(self._plan.zone)
        self._start, self._length = (
            start.timestamp(),
            (BusinessDate(today).plus(1).starts(self._plan.zone) - start).total_seconds(),
        )
        day = Day(today)
        self._keep_catalogue(day, opening=index == 0)
        self._move_customers(day)
        for at in sorted(self._moment() for _ in range(self._count_orders(today, index))):
            self._sell(day, at)
        for order in self._returns.pop(today, ()):
            self._take_back(day, order)
        for order in self._corrections.pop(today, ()):
            self._correct(day, order)
        return day

    def _count_orders(self, today: date, index: int) -> int:
        weight = _WEEK[today.weekday()] * _SEASON.get(today.month, 1.0) * (1 + _GROWTH) ** index
        return max(0, round(self._plan.orders_per_day * weight * self._random.lognormvariate(0, 0.12)))

    def _moment(self) -> datetime:
        hour = bisect(self._hours, self._random.random() * self._hours[-1])
        # 24 such hours fill the day, whether the clocks change in it or not.
        seconds = self._start + (hour + self._random.random()) / 24 * self._length
        return datetime.fromtimestamp(math.floor(seconds), UTC).replace(microsecond=self._random.randrange(1_000_000))

    def _few(self, share: float, of: int) -> int:
        """Give a whole number whose mean is `share * of`."""
        return math.floor(share * of + self._random.random())

    # -- products

    def _keep_catalogue(self, day: Day, *, opening: bool) -> None:
        if opening:
            opened = datetime.fromtimestamp(math.ceil(self._start), UTC)
            self._products = [self._new_product(number, opened) for number in range(self._plan.products)]
            day.products += [product.row(opened) for product in self._products]
            return
        renamed = self._few(_RENAMED, len(self._products))
        count = renamed + self._few(_REPRICED, len(self._products))
        for number, at in enumerate(sorted(self._moment() for _ in range(count))):
            self._change_product(day, at, rename=number < renamed)

    def _new_product(self, number: int, now: datetime) -> _Product:
        price = Decimal(max(29, round(self._random.lognormvariate(6.2, 0.9)))) / 100
        return _Product(f"{21001 + number}{self._random.choice(('', '', '', 'A', 'B'))}", self._describe(), price, now)

    def _describe(self) -> str:
        pick = self._random.choice
        return f"{pick(_ADJECTIVES)} {pick(_THINGS)}{pick(_DETAILS)}"

    def _change_product(self, day: Day, at: datetime, *, rename: bool) -> None:
        index = self._random.randrange(len(self._products))
        product = self._products[index]
        if rename:
            product = replace(product, description=self._describe())
        else:
            factor = self._random.choice(
                (Decimal("0.8"), Decimal("0.9"), Decimal("1.05"), Decimal("1.1"), Decimal("1.25"))
            )
            product = replace(product, price=max(Decimal("0.01"), (product.price * factor).quantize(Decimal("0.01"))))
        self._products[index] = product
        day.products.append(product.row(at))

    # -- customers

    def _register(self, day: Day, at: datetime) -> _Customer:
        number = 12_001 + len(self._customers)
        email = None if self._random.random() < _NO_EMAIL else f"customer.{number}@example.com"
        customer = _Customer(number, email, self._country(), at)
        self._customers.append(customer)
        day.customers.append(customer.row(at))
        return customer

    def _country(self) -> str:
        return self._countries[bisect(self._shares, self._random.random() * self._shares[-1])]

    def _move_customers(self, day: Day) -> None:
        count = self._few(_MOVED, len(self._customers))
        for at in sorted(self._moment() for _ in range(count)):
            index = self._random.randrange(len(self._customers))
            self._customers[index] = replace(self._customers[index], country=self._country())
            day.customers.append(self._customers[index].row(at))

    def _buyer(self, day: Day, at: datetime) -> int | None:
        if self._random.random() < _GUESTS:
            return None
        if not self._customers or self._random.random() < _NEW_CUSTOMERS:
            return self._register(day, at).customer_id
        # The square favours early customers: a few buy often, most once.
        return self._customers[int(self._random.random() ** 2 * len(self._customers))].customer_id

    # -- orders

    def _sell(self, day: Day, at: datetime) -> None:
        if self._random.random() < _ADJUSTED:
            self._adjust(day, at)
            return
        order = _Order(str(next(self._numbers)), self._buyer(day, at), "completed", at, self._basket())
        self._write(day, order)
        if self._random.random() < _RETURNS:
            self._returns[self._later(day.day, 14)].append(order)
        if self._random.random() < (_CORRECTED if order.customer_id else _CORRECTED + _GUEST_REGISTERS):
            self._corrections[self._later(day.day, 10)].append(order)

    def _later(self, today: date, most: int) -> date:
        return today + timedelta(days=1 + int(self._random.random() ** 2 * most))

    def _basket(self) -> list[_Line]:
        size = min(60, max(1, round(self._random.lognormvariate(1.3, 0.8))), len(self._products))
        chosen: dict[int, None] = {}
        while len(chosen) < size:
            rank = bisect(self._popularity, self._random.random() * self._popularity[-1])
            chosen.setdefault(rank if rank not in chosen else self._random.randrange(len(self._products)))
        return [self._line(number, self._products[index]) for number, index in enumerate(chosen, 1)]

    def _line(self, number: int, product: _Product) -> _Line:
        quantity = max(1, round(self._random.lognormvariate(0.6, 0.9)))
        price = product.price if quantity < _DOZEN else (product.price * Decimal("0.85")).quantize(Decimal("0.01"))
        return _Line(number, product.product_id, quantity, price)

    def _adjust(self, day: Day, at: datetime) -> None:
        product = self._random.choice(self._products)
        line = _Line(1, product.product_id, 1, -Decimal(self._random.randrange(100, 50_000)) / 100)
        self._write(day, _Order(f"A{next(self._numbers)}", None, "adjusted", at, [line]))

    def _take_back(self, day: Day, order: _Order) -> None:
        some = self._random.randint(1, len(order.lines))
        lines = [
            replace(line, number=number, quantity=-line.quantity) for number, line in enumerate(order.lines[:some], 1)
        ]
        self._write(day, _Order(f"C{next(self._numbers)}", order.customer_id, "cancelled", self._moment(), lines))

    def _correct(self, day: Day, order: _Order) -> None:
        """Change a past order: a guest made an account, or fewer pieces of a line were delivered than ordered."""
        now = self._moment()
        if order.customer_id is None:
            order.customer_id = self._register(day, now).customer_id
        else:
            index = self._random.randrange(len(order.lines))
            order.lines[index] = replace(order.lines[index], quantity=max(1, order.lines[index].quantity - 1))
            day.order_items.append(order.line_row(order.lines[index], now))
        day.orders.append(order.row(now))

    @staticmethod
    def _write(day: Day, order: _Order) -> None:
        day.orders.append(order.row(order.at))
        day.order_items += [order.line_row(line, order.at) for line in order.lines]
