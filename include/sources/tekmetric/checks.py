"""Invariants between Tekmetric's tables: lines add up to jobs, jobs to orders, and orders to what they earn.

The vendor computes estimate and profit in two places; here they are compared. Values that the vendor leaves out (null)
are not compared. An order that changed after the sync's watermark may have changed between its answers too, so it is
left out until the next sync has read it again.
"""

from psycopg import sql

from include.confidence.integrity import Severity
from include.sources.mirror.invariant import Invariant
from include.sources.tekmetric import tables
from include.sources.tekmetric.derived import SNAPSHOTS, SNAPSHOTS_OF
from include.warehouse.sql_fragments import identifiers
from include.warehouse.table import Table

# By how many cents a line, and a sum of lines, may differ, since the vendor's rounding is not known; and by how many
# points two margins may, unless a difference of cents explains more.
LINE, TOTAL, POINTS = 10, 100, 0.5
HOURS = 0.01

ORDERS = """
SELECT o.* FROM tekmetric.repair_orders o
WHERE o.deleted_at IS NULL AND coalesce(o.updated_date <= (
  SELECT min(watermark) FROM confidence.sync_state WHERE source = 'tekmetric' AND entity = 'repair_orders'), true)
"""

PARTS_MATH = """
SELECT p.shop_id, p.tm_job_id, p.line
FROM tekmetric.job_parts p JOIN orders o ON o.shop_id = p.shop_id AND o.tm_id = p.tm_repair_order_id
WHERE p.deleted_at IS NULL
  AND abs(coalesce(p.retail, 0) * tekmetric.part_factor(p.quantity, p.retail, p.total) - p.total) > {line}
"""

LABOR_MATH = """
SELECT l.shop_id, l.tm_job_id, l.line
FROM tekmetric.job_labor l JOIN orders o ON o.shop_id = l.shop_id AND o.tm_id = l.tm_repair_order_id
WHERE l.deleted_at IS NULL AND abs(coalesce(l.hours, 0) * coalesce(l.rate, 0) - l.total) > {line}
"""

# The items of a job compared with the job's amounts in the same estimate.
JOB_SUMS = """
SELECT j.shop_id, j.tm_id
FROM tekmetric.jobs j JOIN orders o ON o.shop_id = j.shop_id AND o.tm_id = j.tm_repair_order_id
CROSS JOIN LATERAL (
  SELECT coalesce(sum(p.retail * factor), 0) AS retail, coalesce(sum(p.cost * factor), 0) AS cost
  FROM tekmetric.job_parts p, tekmetric.part_factor(p.quantity, p.retail, p.total) factor
  WHERE p.shop_id = j.shop_id AND p.tm_job_id = j.tm_id AND p.deleted_at IS NULL
) parts
CROSS JOIN LATERAL (
  SELECT coalesce(sum(l.hours * l.rate), 0) AS retail, coalesce(sum(l.hours), 0) AS hours
  FROM tekmetric.job_labor l WHERE l.shop_id = j.shop_id AND l.tm_job_id = j.tm_id AND l.deleted_at IS NULL
) labor
CROSS JOIN LATERAL (
  SELECT coalesce(sum(s.retail), 0) AS retail, coalesce(sum(s.cost), 0) AS cost
  FROM tekmetric.job_sublets s WHERE s.shop_id = j.shop_id AND s.tm_job_id = j.tm_id AND s.deleted_at IS NULL
) sublets
CROSS JOIN LATERAL (
  SELECT coalesce(sum(f.total), 0) AS total FROM tekmetric.job_fees f
  WHERE f.shop_id = j.shop_id AND f.tm_repair_order_id = j.tm_repair_order_id AND f.tm_job_id = j.tm_id
    AND f.deleted_at IS NULL
) fees
WHERE j.deleted_at IS NULL AND (
  greatest(
    abs(parts.retail - j.parts_total), abs(parts.cost - j.parts_cost), abs(labor.retail - j.labor_total),
    abs(sublets.retail - j.sublet_total), abs(sublets.cost - j.sublet_cost), abs(fees.total - j.fees_total),
    abs(j.parts_total + j.labor_total + j.sublet_total + j.fees_total - j.discount - j.subtotal)
  ) > {total}
  OR abs(labor.hours - j.labor_hours) > {hours})
"""

JOB_TAXES = """
SELECT j.shop_id, j.tm_id
FROM tekmetric.jobs j JOIN orders o ON o.shop_id = j.shop_id AND o.tm_id = j.tm_repair_order_id
WHERE j.deleted_at IS NULL AND greatest(
  abs(j.parts_tax_total + j.labor_tax_total + j.fees_tax_total - j.tax),
  abs(j.parts_total + j.labor_total + j.sublet_total + j.fees_total - j.discount
    + j.parts_tax_total + j.labor_tax_total + j.fees_tax_total - j.total)
) > {total}
"""

# The number and the sums of an order's jobs: of all, and of the authorized ones.
WITH_JOBS = """
orders o CROSS JOIN LATERAL (
  SELECT count(*) AS count, coalesce(sum(parts_total), 0) AS parts, coalesce(sum(labor_total), 0) AS labor,
    coalesce(sum(sublet_total), 0) AS sublets, coalesce(sum(fees_total), 0) AS fees,
    coalesce(sum(discount), 0) AS discount,
    coalesce(sum(coalesce(tax, parts_tax_total + labor_tax_total + fees_tax_total)), 0) AS tax
  FROM tekmetric.jobs j
  WHERE j.shop_id = o.shop_id AND j.tm_repair_order_id = o.tm_id AND j.deleted_at IS NULL
) jobs CROSS JOIN LATERAL (
  SELECT count(*) AS count, coalesce(sum(total), 0) AS total, coalesce(sum(parts_total), 0) AS parts,
    coalesce(sum(labor_total), 0) AS labor, coalesce(sum(sublet_total), 0) AS sublets,
    coalesce(sum(fees_total), 0) AS fees, coalesce(sum(discount), 0) AS discount,
    coalesce(sum(coalesce(tax, parts_tax_total + labor_tax_total + fees_tax_total)), 0) AS tax
  FROM tekmetric.jobs j
  WHERE j.shop_id = o.shop_id AND j.tm_repair_order_id = o.tm_id AND j.deleted_at IS NULL AND j.authorized
) agreed CROSS JOIN LATERAL (
  -- What taxable fees of the order itself may add to its tax.
  SELECT CASE WHEN bool_or(f.taxable)
    THEN greatest(o.potential_fees_total - jobs.fees, 0) * coalesce(o.tax_rate, 0) / 100 ELSE 0 END AS tax
  FROM tekmetric.job_fees f
  WHERE f.shop_id = o.shop_id AND f.tm_repair_order_id = o.tm_id AND f.tm_job_id = 0 AND f.deleted_at IS NULL
) fees
"""

# An order's fees and discounts include its own, which belong to no job.
SUMS = """
SELECT o.shop_id, o.tm_id FROM {with_jobs}
CROSS JOIN LATERAL (
  SELECT jobs.parts + jobs.labor + jobs.sublets + o.potential_fees_total - o.potential_discount AS subtotal
) own
WHERE o.potential_job_count <> jobs.count OR o.authorized_job_count <> agreed.count OR greatest(
  abs(own.subtotal - (o.potential_total - o.potential_tax)), abs(own.subtotal - o.potential_subtotal),
  abs(jobs.discount + o.order_discount - o.potential_discount),
  abs(jobs.parts - o.potential_parts_total), abs(jobs.labor - o.potential_labor_total),
  abs(jobs.sublets - o.potential_sublet_total),
  abs(agreed.total - o.authorized_total), abs(agreed.parts - o.authorized_parts_total),
  abs(agreed.labor - o.authorized_labor_total), abs(agreed.sublets - o.authorized_sublet_total),
  abs(agreed.fees - o.authorized_fees_total), abs(agreed.discount - o.authorized_discount),
  abs(agreed.parts + agreed.labor + agreed.sublets + agreed.fees - agreed.discount - o.authorized_subtotal)
) > {total}
"""

TAXES = """
SELECT o.shop_id, o.tm_id FROM {with_jobs}
WHERE o.potential_tax - jobs.tax NOT BETWEEN -{total} AND {total} + fees.tax
  OR abs(o.authorized_tax - agreed.tax) > {total}
"""

# The head has what is paid, the estimate what is still to be paid, and the profit the price.
BALANCES = """
SELECT o.shop_id, o.tm_id FROM {with_jobs}
WHERE agreed.count > 0
  AND o.amount_paid + o.balance_due - o.authorized_revenue - agreed.tax NOT BETWEEN -{total} AND {total} + fees.tax
"""

# The figures of a profit among themselves. Without revenue there is no margin, and the row must not keep an old one.
PROFITS = """
SELECT o.shop_id, o.tm_id FROM orders o
WHERE greatest(
    abs(o.authorized_revenue - o.authorized_cost - o.authorized_profit),
    abs(o.authorized_labor_revenue - o.authorized_labor_cost - o.authorized_labor_profit)
  ) > {total}
  OR (o.authorized_gp_percent IS NULL) <> (coalesce(o.authorized_revenue, 0) = 0)
  OR abs(o.authorized_profit * 100.0 / nullif(o.authorized_revenue, 0) - o.authorized_gp_percent) > {points}
"""

# Our own calculation of every order from its lines, as in a snapshot, beside the vendor's profit. It leaves out fees
# of jobs, which the vendor counts. `guessed`: the rate of some labor is assumed, so its cost can't be compared.
OWN = """
SELECT s.shop_id, s.tm_repair_order_id, s.true_revenue + fees.total AS revenue, s.true_cost AS cost, labor.*,
  s.authorized_revenue, s.authorized_cost, s.tm_reported_gp_percent,
  s.labor_revenue AS authorized_labor_revenue, s.labor_cost AS authorized_labor_cost,
  s.labor_hours AS authorized_labor_hours
FROM ({snapshots}) s ({columns})
CROSS JOIN LATERAL (
  SELECT coalesce(sum(f.total), 0) AS total
  FROM tekmetric.job_fees f JOIN tekmetric.jobs j ON j.shop_id = f.shop_id AND j.tm_id = f.tm_job_id
  WHERE f.shop_id = s.shop_id AND f.tm_repair_order_id = s.tm_repair_order_id AND f.deleted_at IS NULL
    AND j.authorized AND j.deleted_at IS NULL
) fees
CROSS JOIN LATERAL (
  SELECT coalesce(sum(l.revenue), 0) AS labor_revenue, coalesce(sum(l.cost), 0) AS labor_cost,
    coalesce(sum(l.hours), 0) AS labor_hours, coalesce(bool_or(l.rate_source <> 'assigned'), false) AS guessed
  FROM jsonb_to_recordset(s.labor) l (hours numeric, revenue numeric, cost numeric, rate_source text)
) labor
"""

# Parts of the query for snapshots: of all checked orders, on any day.
ANY_TIME = "('check', DATE '1970-01-01')"
THOSE = "(t.shop_id, t.tm_id) IN (SELECT shop_id, tm_id FROM orders)"

CROSS_ENDPOINT = """
SELECT shop_id, tm_repair_order_id FROM ({own}) own
WHERE abs(labor_hours - authorized_labor_hours) > {hours} OR greatest(
  abs(revenue - authorized_revenue), abs(labor_revenue - authorized_labor_revenue),
  CASE WHEN NOT guessed THEN greatest(abs(cost - authorized_cost), abs(labor_cost - authorized_labor_cost)) END
) > {total}
"""

GROSS_PROFITS = """
SELECT shop_id, tm_repair_order_id FROM ({own}) own
WHERE NOT guessed AND revenue > 0
  AND abs((revenue - cost) * 100.0 / revenue - tm_reported_gp_percent) > {points}
  AND greatest(abs(revenue - authorized_revenue), abs(cost - authorized_cost)) > {line}
"""

MISSING = """
SELECT o.shop_id, o.tm_id FROM orders o
WHERE num_nulls(o.ro_number, o.created_date, o.updated_date, o.status_id, o.potential_total, o.potential_tax,
    o.authorized_revenue, o.authorized_cost, o.authorized_profit,
    o.authorized_labor_revenue, o.authorized_labor_cost, o.authorized_labor_hours) > 0
  OR o.status IN ('POSTED', 'ACCRECV') AND o.posted_at IS NULL
"""

MISSING_IN_JOBS = """
SELECT found.* FROM (
  SELECT 'jobs' AS "table", shop_id, tm_repair_order_id, tm_id AS tm_job_id, '' AS line FROM tekmetric.jobs
  WHERE deleted_at IS NULL AND num_nulls(total, parts_total, parts_cost, labor_total, labor_hours) > 0
  UNION ALL
  SELECT 'job_parts', shop_id, tm_repair_order_id, tm_job_id, line FROM tekmetric.job_parts
  WHERE deleted_at IS NULL AND num_nulls(quantity, retail, cost) > 0
  UNION ALL
  SELECT 'job_labor', shop_id, tm_repair_order_id, tm_job_id, line FROM tekmetric.job_labor
  WHERE deleted_at IS NULL AND num_nulls(hours, rate) > 0
  UNION ALL
  SELECT 'job_sublets', shop_id, tm_repair_order_id, tm_job_id, line FROM tekmetric.job_sublets
  WHERE deleted_at IS NULL AND num_nulls(retail, cost) > 0
) found JOIN orders o ON o.shop_id = found.shop_id AND o.tm_id = found.tm_repair_order_id
"""

# The day is the shop's, which differs from the day in UTC in the evening.
DAYS = """
SELECT o.shop_id, o.tm_id FROM orders o JOIN tekmetric.shops s ON s.tm_id = o.shop_id
WHERE (o.posted_date, o.completed_date)
  IS DISTINCT FROM ((o.posted_at AT TIME ZONE s.timezone)::date, (o.completed_at AT TIME ZONE s.timezone)::date)
"""

# Manual snapshots are left out: they may be of any day, and keep what was true then. If an order is posted again, the
# snapshot of the former day has to be gone.
SNAPSHOTS_UNLIKE = """
SELECT s.shop_id, s.tm_repair_order_id, s.snapshot_date, s.snapshot_trigger
FROM tekmetric.ro_snapshots s JOIN tekmetric.repair_orders o ON o.shop_id = s.shop_id AND o.tm_id = s.tm_repair_order_id
WHERE s.deleted_at IS NULL AND o.deleted_at IS NULL AND s.snapshot_trigger <> 'manual' AND (
  s.snapshot_date
    IS DISTINCT FROM CASE s.snapshot_trigger WHEN 'posted' THEN o.posted_date ELSE o.completed_date END
  OR (s.authorized_revenue, s.authorized_cost, s.authorized_profit)
    IS DISTINCT FROM (o.authorized_revenue, o.authorized_cost, o.authorized_profit))
"""

WITHOUT_SNAPSHOT = """
SELECT o.shop_id, o.tm_id, m.day, m.trigger FROM tekmetric.repair_orders o
CROSS JOIN LATERAL (VALUES ('posted', o.posted_date), ('completed', o.completed_date)) m (trigger, day)
WHERE o.deleted_at IS NULL AND m.day IS NOT NULL AND NOT EXISTS (
  SELECT FROM tekmetric.ro_snapshots s
  WHERE s.shop_id = o.shop_id AND s.tm_repair_order_id = o.tm_id AND s.snapshot_date = m.day
    AND s.snapshot_trigger = m.trigger AND s.deleted_at IS NULL)
"""

# No order counts twice, and an order that has left a day does not count there.
DAYS_UNLIKE = """
SELECT shop_id, metric_date
FROM (
  SELECT shop_id, snapshot_date AS metric_date, count(*) AS ro_count,
    coalesce(sum(authorized_revenue), 0) AS authorized_revenue,
    coalesce(sum(authorized_profit), 0) AS authorized_profit, coalesce(sum(true_profit), 0) AS true_profit
  FROM tekmetric.counted_snapshots() GROUP BY 1, 2
) s
FULL JOIN (SELECT * FROM tekmetric.daily_shop_metrics WHERE deleted_at IS NULL) d USING (shop_id, metric_date)
WHERE (s.ro_count, s.authorized_revenue, s.authorized_profit, s.true_profit)
  IS DISTINCT FROM (d.ro_count, d.authorized_revenue, d.authorized_profit, d.true_profit)
"""

# Manual snapshots are kept when their order is deleted.
SNAPSHOTS_WITHOUT_ORDER = """
SELECT s.shop_id, s.tm_repair_order_id, s.snapshot_date, s.snapshot_trigger
FROM tekmetric.ro_snapshots s
WHERE s.deleted_at IS NULL AND s.snapshot_trigger <> 'manual' AND NOT EXISTS (
  SELECT FROM tekmetric.repair_orders o
  WHERE o.shop_id = s.shop_id AND o.tm_id = s.tm_repair_order_id AND o.deleted_at IS NULL)
"""

ORPHANS = """
SELECT {key} FROM {child} t WHERE t.deleted_at IS NULL AND t.{column} IS NOT NULL
AND NOT EXISTS (
  SELECT FROM {parent} p WHERE p.shop_id = t.shop_id AND p.tm_id = t.{column} AND p.deleted_at IS NULL)
"""

# The job has to be of the same order. The fees of the order itself have job 0.
OUTSIDE_JOBS = """
SELECT {key} FROM {child} t WHERE t.deleted_at IS NULL AND t.tm_job_id <> 0
AND NOT EXISTS (
  SELECT FROM tekmetric.jobs j WHERE j.shop_id = t.shop_id AND j.tm_id = t.tm_job_id
    AND j.tm_repair_order_id = t.tm_repair_order_id AND j.deleted_at IS NULL)
"""


PIECES = {
    "line": sql.Literal(LINE),
    "total": sql.Literal(TOTAL),
    "points": sql.Literal(POINTS),
    "hours": sql.Literal(HOURS),
    "with_jobs": sql.SQL(WITH_JOBS),
    "own": sql.SQL(OWN).format(
        snapshots=sql.SQL(SNAPSHOTS_OF).format(moments=sql.SQL(ANY_TIME), touched=sql.SQL(THOSE)),
        columns=identifiers(SNAPSHOTS.table.names),
    ),
}


def _rule(name: str, query: str, severity: Severity = Severity.ERROR) -> Invariant:
    """Return an invariant whose query selects from `orders`, the orders that are checked."""
    return Invariant(name, "repair_orders", sql.SQL(f"WITH orders AS ({ORDERS}) {query}").format(**PIECES), severity)


def _refers(name: str, child: Table, column: str, parent: Table, severity: Severity, entity: str) -> Invariant:
    """Return an invariant: a value in `column` of a live row of `child` is the key of a live row of `parent`."""
    key, column = identifiers(child.key, "t"), sql.Identifier(column)
    query = sql.SQL(ORPHANS).format(key=key, child=child.sql, column=column, parent=parent.sql)
    return Invariant(name, entity, query, severity)


def _belongs(name: str, child: Table, column: str, parent: Table) -> Invariant:
    """Return an invariant of severity error: each live row of `child` belongs to a live row of `parent`."""
    return _refers(name, child, column, parent, Severity.ERROR, "repair_orders")


def _refers_weakly(name: str, child: Table, column: str, parent: Table, entity: str = "repair_orders") -> Invariant:
    """Return an invariant of severity warning, since the vendor may delete the row that `column` names."""
    return _refers(name, child, column, parent, Severity.WARNING, entity)


def _in_job(name: str, child: Table) -> Invariant:
    query = sql.SQL(OUTSIDE_JOBS).format(key=identifiers(child.key, "t"), child=child.sql)
    return Invariant(name, "repair_orders", query)


ORDER = "tm_repair_order_id"
CHECKS = (
    _rule("parts_math_errors", PARTS_MATH),
    _rule("labor_math_errors", LABOR_MATH),
    _rule("job_sum_mismatches", JOB_SUMS),
    _rule("job_tax_mismatches", JOB_TAXES),
    _rule("sum_mismatches", SUMS),
    _rule("tax_mismatches", TAXES),
    _rule("balance_mismatches", BALANCES, Severity.WARNING),
    _rule("profit_mismatches", PROFITS),
    _rule("gp_mismatches", GROSS_PROFITS),
    _rule("cross_endpoint_disagreements", CROSS_ENDPOINT),
    _rule("missing_data", MISSING),
    _rule("missing_data_in_jobs", MISSING_IN_JOBS, Severity.WARNING),
    _rule("days_unlike_instants", DAYS),
    Invariant("snapshots_unlike_order", "repair_orders", sql.SQL(SNAPSHOTS_UNLIKE)),
    Invariant("orders_without_snapshot", "repair_orders", sql.SQL(WITHOUT_SNAPSHOT)),
    Invariant("days_unlike_snapshots", "repair_orders", sql.SQL(DAYS_UNLIKE)),
    Invariant("snapshots_without_order", "repair_orders", sql.SQL(SNAPSHOTS_WITHOUT_ORDER)),
    _belongs("jobs_without_order", tables.JOBS, ORDER, tables.REPAIR_ORDERS),
    _belongs("fees_without_order", tables.JOB_FEES, ORDER, tables.REPAIR_ORDERS),
    _in_job("parts_without_job", tables.JOB_PARTS),
    _in_job("labor_without_job", tables.JOB_LABOR),
    _in_job("sublets_without_job", tables.JOB_SUBLETS),
    _in_job("fees_without_job", tables.JOB_FEES),
    _refers_weakly("labor_without_technician", tables.JOB_LABOR, "tm_technician_id", tables.EMPLOYEES),
    _refers_weakly("orders_without_customer", tables.REPAIR_ORDERS, "tm_customer_id", tables.CUSTOMERS),
    _refers_weakly("orders_without_vehicle", tables.REPAIR_ORDERS, "tm_vehicle_id", tables.VEHICLES),
    _refers_weakly("orders_without_advisor", tables.REPAIR_ORDERS, "tm_service_advisor_id", tables.EMPLOYEES),
    _refers_weakly("vehicles_without_customer", tables.VEHICLES, "tm_customer_id", tables.CUSTOMERS, "vehicles"),
)
