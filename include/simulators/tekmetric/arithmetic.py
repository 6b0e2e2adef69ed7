"""What an order comes to: lines rounded half up to whole cents, everything else added up from them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_UP, Decimal

from include.simulators.tekmetric.orders import Fee, Job, Labor, Order, Part

_WHOLE, _MARGIN = Decimal(1), Decimal("0.0001")


def half_up(value: Decimal | int) -> int:
    """The nearest whole cent."""
    return int(Decimal(value).quantize(_WHOLE, ROUND_HALF_UP))


def margin_of(profit: int, retail: int) -> Decimal | None:
    """Profit as a share of the retail price, to four places; None where that is 0."""
    return (Decimal(profit) / retail).quantize(_MARGIN, ROUND_HALF_UP) if retail else None


def part_retail(part: Part) -> int:
    """Cents for all pieces."""
    return half_up(part.quantity * part.retail)


def part_cost(part: Part) -> int:
    """Cents for all pieces."""
    return half_up(part.quantity * part.cost)


def labor_retail(labor: Labor) -> int:
    """Cents for all hours."""
    return half_up(labor.hours * labor.rate)


def labor_cost(labor: Labor) -> int:
    """Cents for all hours; nothing where no technician is named."""
    return half_up(labor.hours * labor.hourly_rate)


def fee_amount(fee: Fee, base: int) -> int:
    """Cents of a fee on sales of `base` cents."""
    if fee.percentage is None:
        return fee.amount
    share = half_up(base * fee.percentage / 100)
    return min(share, fee.cap) if fee.cap else share


@dataclass(frozen=True)
class Sums:
    """Cents and hours of a job, or of several in their order; `order_*` is what the order itself adds and takes off."""

    hours: Decimal = Decimal(0)
    parts: int = 0
    parts_cost: int = 0
    labor: int = 0
    labor_cost: int = 0
    sublets: int = 0
    sublets_cost: int = 0
    discounts: int = 0
    fees: int = 0
    parts_tax: int = 0
    labor_tax: int = 0
    fees_tax: int = 0
    order_fees: int = 0
    order_discount: int = 0

    @property
    def base(self) -> int:
        """What the order's fees are a share of."""
        return self.parts + self.labor + self.sublets - self.discounts

    @property
    def retail(self) -> int:
        """All that is sold, before tax."""
        return self.base + self.fees + self.order_fees - self.order_discount

    @property
    def cost(self) -> int:
        return self.parts_cost + self.labor_cost + self.sublets_cost

    @property
    def profit(self) -> int:
        return self.retail - self.cost

    @property
    def margin(self) -> Decimal | None:
        """Profit as a share of `retail`, to four places; None where that is 0."""
        return margin_of(self.profit, self.retail)

    @property
    def tax(self) -> int:
        return self.parts_tax + self.labor_tax + self.fees_tax

    @property
    def total(self) -> int:
        """With tax."""
        return self.retail + self.tax


def job_sums(job: Job, tax_rate: Decimal) -> Sums:
    """What a job comes to by itself. Discounts don't lower the tax; sublets bear none."""
    parts = sum(map(part_retail, job.parts))
    labor = sum(map(labor_retail, job.labor))
    sublets = sum(sublet.retail for sublet in job.sublets)
    base = parts + labor + sublets - job.discount
    fees = [(fee_amount(fee, base), fee.taxable) for fee in job.fees]
    return Sums(
        hours=sum((line.hours for line in job.labor), Decimal(0)),
        parts=parts,
        parts_cost=sum(map(part_cost, job.parts)),
        labor=labor,
        labor_cost=sum(map(labor_cost, job.labor)),
        sublets=sublets,
        sublets_cost=sum(sublet.cost for sublet in job.sublets),
        discounts=job.discount,
        fees=sum(amount for amount, _ in fees),
        parts_tax=_tax(parts, tax_rate),
        labor_tax=_tax(labor, tax_rate),
        fees_tax=_tax(sum(amount for amount, taxable in fees if taxable), tax_rate),
    )


def authorized(order: Order) -> Sums:
    """The sums of the jobs that the customer agreed to, as in the vendor's profit; all 0 if there is none."""
    return _sums(order, [job for job in order.jobs if job.authorized])


def potential(order: Order) -> Sums:
    """The sums of all jobs, authorized or not."""
    return _sums(order, order.jobs)


def _sums(order: Order, jobs: Iterable[Job]) -> Sums:
    each = [job_sums(job, order.tax_rate) for job in jobs]
    if not each:
        return Sums()
    together = {field.name: sum(getattr(one, field.name) for one in each) for field in fields(Sums)}
    base = Sums(**together).base
    taxable = sum(fee_amount(fee, base) for fee in order.fees if fee.taxable)
    return Sums(
        **together
        | {
            "fees_tax": together["fees_tax"] + _tax(taxable, order.tax_rate),
            "order_fees": sum(fee_amount(fee, base) for fee in order.fees),
            "order_discount": order.discount,
        }
    )


def _tax(cents: int, rate: Decimal) -> int:
    return half_up(cents * rate / 100)
