"""What an account has from the start: a function of its Config and of the instant at which its clock starts.

Of each shop's orders the newest are not posted yet; a part of them, and of the posted ones, falls into the last days,
the rest is spread over the history. Every sixth is posted within minutes of its shop's midnight, and so are those
nearest to a change between winter and summer time.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from include.simulators.clock import instant
from include.simulators.tekmetric import arithmetic, people
from include.simulators.tekmetric.config import Config, Shop
from include.simulators.tekmetric.orders import (
    COMPLETE,
    ESTIMATE,
    PER_PARENT,
    POSTED,
    RECEIVABLE,
    WORK_IN_PROGRESS,
    Fee,
    Job,
    Labor,
    Order,
    Part,
    Sublet,
)
from include.simulators.tekmetric.people import Row

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_FIRST_ORDER, _FIRST_NUMBER, _FIRST_CUSTOMER, _FIRST_VEHICLE, _FIRST_EMPLOYEE = 880_001, 4_001, 20_001, 30_001, 3_001
_RECENT_DAYS = 12
_UNPOSTED = (WORK_IN_PROGRESS, COMPLETE, ESTIMATE, WORK_IN_PROGRESS, COMPLETE)  # from the newest back
_TAX_RATES = (Decimal("8.875"), Decimal("8.1"), Decimal("9.5"))
_LABOR_RATES = (16_500, 14_950, 17_525)
_DISPOSAL = Fee(name="Oil disposal", amount=395, taxable=True)
# Name, category, hours, the parts by name, brand, quantity, retail and cost of one.
_SERVICES = (
    ("Oil change", "Maintenance", "0.5", (("Oil 5W-30", "Summit", "4.73", 899, 412), ("Filter", None, "1", 1499, 523))),
    ("Brake job", "Brakes", "2.25", (("Rotor", "Summit", "2", 8995, 4310), ("Brake pads", "Orbit", "1", 7450, 3125))),
    ("Cooling system", "Engine", "1.7", (("Coolant", "Summit", "2.5", 1895, 890), (None, "Orbit", "1", 4425, 1999))),
    ("Alignment", "Suspension", "1.15", ()),
    ("Spark plugs", "Engine", "1.35", (("Spark plug", "Orbit", "6", 1733, 846), ("Gasket", None, "1", 2150, 975))),
    ("Battery", "Electrical", "0.4", (("Battery", "Summit", "1", 18999, 12150), ("Terminal", "Summit", "1", 655, 210))),
    ("Wiper and wash", "Maintenance", "0.3", (("Washer fluid", None, "0.5", 799, 301),)),
    ("Suspension", "Suspension", "3.6", (("Strut", "Orbit", "1", 15450, 8275), ("Strut", "Orbit", "1", 15450, 8275))),
)  # fmt: skip


class Rows(NamedTuple):
    """The rows of an account, by kind."""

    orders: list[Order]
    customers: list[Row]
    vehicles: list[Row]
    employees: list[Row]


class _Times(NamedTuple):
    """Of an order, in seconds since 1970."""

    status: int
    created: int
    updated: int
    completed: int | None = None
    posted: int | None = None


def generate(config: Config, now: int) -> Rows:
    """All rows, each kind in order of its ids."""
    random = Random(config.seed)
    long_ago = instant(now - (config.days + 30) * _DAY)
    shops = config.shops
    customers = [
        people.customer(shops[place % len(shops)], _FIRST_CUSTOMER + place, long_ago)
        for place in range(config.customers)
    ]
    by_id = {shop.tm_id: shop for shop in shops}
    owners = [row for place, row in enumerate(customers) for _ in range(1 + (place % 4 == 0))]
    vehicles = [
        people.vehicle(by_id[owner["shopId"]], _FIRST_VEHICLE + place, owner["id"], long_ago)
        for place, owner in enumerate(owners)
    ]
    employees = [
        people.employee(shop, _FIRST_EMPLOYEE + index * config.employees + place, place, long_ago)
        for index, shop in enumerate(shops)
        for place in range(config.employees)
    ]
    return Rows(list(_orders(config, now, vehicles, employees, random)), customers, vehicles, employees)


def invent_jobs(random: Random, order_id: int, status: int, technicians: Sequence[Row], moment: str) -> tuple[Job, ...]:
    """One to three jobs, decided upon as befits the order's status; the first is authorized as a rule."""
    return tuple(
        _job(random, order_id * PER_PARENT + place + 1, _decided(random, status, place, moment), technicians)
        for place in range(random.choice((1, 1, 2, 2, 3)))
    )


def technicians_of(staff: Sequence[Row]) -> list[Row]:
    """Those who do the work."""
    return [row for row in staff if row["employeeRole"]["code"] == people.TECHNICIAN]


def tax_rate(config: Config, shop_id: int) -> Decimal:
    """A shop's rate, in per cent."""
    place = [shop.tm_id for shop in config.shops].index(shop_id)
    return _TAX_RATES[place % len(_TAX_RATES)]


def _orders(config: Config, now: int, vehicles: list[Row], employees: list[Row], random: Random) -> Iterator[Order]:
    """The orders by time of creation. Their ids ascend with it, and so do the numbers within a shop."""
    times = [
        (shop, each)
        for index, shop in enumerate(config.shops)
        for each in _shop_times(shop, len(range(index, config.orders, len(config.shops))), config.days, now, random)
    ]
    times.sort(key=lambda pair: pair[1].created)
    numbers = dict.fromkeys(config.shops, _FIRST_NUMBER)
    cars = {shop: [row for row in vehicles if row["shopId"] == shop.tm_id] for shop in config.shops}
    staff = {shop: [row for row in employees if row["shopId"] == shop.tm_id] for shop in config.shops}
    for place, (shop, each) in enumerate(times):
        writers = [row for row in staff[shop] if row["employeeRole"]["code"] == people.ADVISOR]
        car, writer = _one(random, cars[shop]), _one(random, writers)
        order = Order(
            id=_FIRST_ORDER + place,
            shop_id=shop.tm_id,
            number=numbers[shop],
            status=each.status,
            created=instant(each.created),
            updated=instant(each.updated),
            completed=each.completed and instant(each.completed),
            posted=each.posted and instant(each.posted),
            customer_id=car and car["customerId"],
            vehicle_id=car and car["id"],
            writer_id=writer and writer["id"],
            jobs=invent_jobs(
                random,
                _FIRST_ORDER + place,
                each.status,
                technicians_of(staff[shop]),
                instant(each.created + 20 * _MINUTE),
            ),
            fees=_order_fees(random),
            discount=random.choice((500, 1_000)) if random.random() < 0.08 else 0,
            tax_rate=tax_rate(config, shop.tm_id),
        )
        yield replace(order, paid=arithmetic.authorized(order).total) if each.status == POSTED else order
        numbers[shop] += 1


def _shop_times(shop: Shop, number: int, days: int, now: int, random: Random) -> list[_Times]:
    unposted = min(20, number * 2 // 5)
    recent = min(25, (number - unposted) // 2)
    old = number - unposted - recent
    live = [
        _unposted_times(_UNPOSTED[place % len(_UNPOSTED)], end, random)
        for place, end in enumerate(_spread(unposted, now - 20 * _MINUTE, _RECENT_DAYS * _DAY))
    ]
    ends = [
        *_spread(recent, now - 30 * _HOUR, _RECENT_DAYS * _DAY),
        *_spread(old, now - (_RECENT_DAYS + 2) * _DAY, (days - _RECENT_DAYS - 2) * _DAY),
    ]
    zone = ZoneInfo(shop.timezone)
    ends = [_near_midnight(end, zone, random) if place % 6 == 1 else end for place, end in enumerate(ends)]
    free = set(range(recent, len(ends)))
    for wanted in _around_changes(zone, now - days * _DAY, now - 2 * _DAY):
        if free:
            nearest = min(free, key=lambda place: abs(ends[place] - wanted))
            ends[nearest] = wanted
            free.remove(nearest)
    return live + [_posted_times(end, random) for end in ends]


def _spread(number: int, newest: int, span: int) -> list[int]:
    """Instants from the newest back, evenly over a span of seconds."""
    return [newest - span * place // number for place in range(number)]


def _unposted_times(status: int, end: int, random: Random) -> _Times:
    created = end - random.randrange(2 * _HOUR, 30 * _HOUR)
    return _Times(status, created, end + 5, end if status == COMPLETE else None)


def _posted_times(end: int, random: Random) -> _Times:
    """Half of the orders are posted at once, the others up to a day after their completion."""
    completed = end - random.choice((40, random.randrange(_HOUR, 26 * _HOUR)))
    created = completed - random.randrange(3 * _HOUR, 50 * _HOUR)
    return _Times(RECEIVABLE if random.random() < 0.12 else POSTED, created, end + 4, completed, end)


def _near_midnight(end: int, zone: ZoneInfo, random: Random) -> int:
    """Up to twenty minutes before or after the midnight at which the instant's local day begins."""
    day = datetime.fromtimestamp(end, zone).date()
    return _midnight(day, zone) + random.randrange(-20 * _MINUTE, 20 * _MINUTE)


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, time_of_day(), zone).timestamp())


def _around_changes(zone: ZoneInfo, start: int, end: int) -> Iterator[int]:
    """Shortly before and after either midnight of each day on which the zone's clocks change."""
    day = datetime.fromtimestamp(start, zone).date()
    while _midnight(following := day + timedelta(days=1), zone) + 10 * _MINUTE < end:
        if _midnight(following, zone) - _midnight(day, zone) != _DAY:
            yield from (_midnight(day, zone) - 10 * _MINUTE, _midnight(day, zone) + 15 * _MINUTE)
            yield from (_midnight(following, zone) - 5 * _MINUTE, _midnight(following, zone) + 5 * _MINUTE)
        day = following


def _decided(random: Random, status: int, place: int, moment: str) -> dict:
    """What the customer said to a job; nothing yet to an estimate."""
    chance = random.random()
    if status == ESTIMATE or (place and chance < 0.1):
        return {}
    if chance < (0.3 if place else 0.04):
        return {"authorized": False, "declined": True}
    return {"authorized": True, "authorized_date": moment}


def _job(random: Random, job_id: int, decided: dict, technicians: Sequence[Row]) -> Job:
    name, category, hours, parts = random.choice(_SERVICES)
    ids = iter(range(job_id * PER_PARENT, (job_id + 1) * PER_PARENT))
    nameless = random.random() < 0.12  # no ids but the job's
    technician = _one(random, technicians) if random.random() < 0.93 else None
    sublet = Sublet(
        id=None if nameless else next(ids),
        name="Towing",
        retail=random.randrange(80, 240) * 100,
        cost=random.randrange(40, 80) * 100,
        vendor="Example Towing",
        invoice_number=f"T-{job_id % 100_000}",
    )
    return Job(
        id=job_id,
        name=name,
        category=category,
        discount=random.choice((0, 0, 0, 0, 0, 0, 0, 750, 1_225)),
        parts=tuple(_part(random, None if nameless else next(ids), *part) for part in parts),
        labor=(
            Labor(
                id=None if nameless else next(ids),
                name=name if random.random() < 0.9 else None,
                hours=Decimal(hours),
                rate=random.choice(_LABOR_RATES),
                technician_id=technician and technician["id"],
                hourly_rate=technician["hourlyRate"] if technician else 0,
            ),
        ),
        sublets=(sublet,) if random.random() < 0.07 else (),
        fees=_job_fees(random, name),
        **decided,
    )


def _part(
    random: Random, part_id: int | None, name: str | None, brand: str | None, quantity: str, *prices: int
) -> Part:
    factor = random.choice((100, 100, 105, 117))
    retail, cost = (price * factor // 100 for price in prices)
    pieces = Decimal(quantity)
    return Part(
        id=part_id,
        name=name,
        brand=brand,
        part_number=f"P-{retail}",
        quantity=pieces,
        retail=retail,
        cost=cost,
        per_line=pieces >= 2 and random.random() < 0.4,
        core_charge=1_500 if name == "Battery" else 0,
        vendor_id=random.choice((None, 51, 52)),
        received=random.random() < 0.9,
    )


def _job_fees(random: Random, job_name: str) -> tuple[Fee, ...]:
    if job_name == "Oil change":
        return (_DISPOSAL, _DISPOSAL) if random.random() < 0.15 else (_DISPOSAL,)
    if random.random() < 0.08:
        return (Fee(name="Hazardous waste", percentage=Decimal("2.5"), cap=900),)
    return ()


def _order_fees(random: Random) -> tuple[Fee, ...]:
    supplies = Fee(name="Shop supplies", percentage=Decimal("6"), cap=random.choice((None, 0, 2_500)))
    environment = Fee(name="Environmental fee", amount=350)
    return random.choice(((supplies,), (supplies,), (supplies, environment), (environment,), ()))


def _one(random: Random, rows: Sequence[Row]) -> Row | None:
    return random.choice(rows) if rows else None
