"""Tables computed from the orders: a snapshot when an order is completed or posted, and each day's figures from those.

Authorized figures and labor are the vendor's, from its profit of the authorized jobs. The vendor does not split parts,
sublets and fees, so these are summed from the lines. `true_*` is computed from the lines only, as a check of the
vendor: `variance_percent` is the difference of the two margins in points.

A snapshot keeps the hourly rates with which its labor was computed. When the order changes later, its lines keep these
rates, so that a rise in wages does not change the profit of past days. A line gets a new rate only if the technician's
rate was not known before, or if another technician took it over. The rates are not stored with the orders' lines, where
a rise would make every old order differ from its source. To compute with today's rates, remove the snapshots and
rebuild.
"""

from datetime import date

from psycopg import sql

from include.sources.mirror.derive import Derived
from include.sources.tekmetric.tables import SCHEMA
from include.warehouse.table import Column, Table

FIGURES = (
    "authorized_revenue authorized_cost authorized_profit authorized_gp_percent authorized_job_count"
    " parts_revenue parts_cost parts_profit labor_revenue labor_cost labor_profit labor_hours"
    " sublet_revenue sublet_cost fees_total discount_total tax_total"
    " true_revenue true_cost true_profit true_gp_percent potential_revenue potential_job_count"
)


def _table(name: str, key: str, data: str) -> Table:
    columns = tuple(map(Column, f"{key} {data}".split()))
    return Table(SCHEMA, name, columns, tuple(key.split()), version=None, keeps_extra=False)


# Products are truncated to whole cents, line by line. If no job is authorized, nothing is sold: no fees, no
# discounts. Employees and customers that are deleted still count for their rates and names. The lateral joins look
# everything up by the order's key, so the time grows with the number of orders, whatever the planner estimates.
SNAPSHOTS_OF = """
WITH averages AS (
  SELECT shop_id, trunc(avg(hourly_rate)) AS rate FROM tekmetric.employees
  WHERE role = 3 AND status = 'ACTIVE' AND hourly_rate > 0 AND deleted_at IS NULL GROUP BY 1
)
SELECT t.shop_id, t.tm_repair_order_id, moment.day, moment.trigger, t.status, t.ro_number,
  coalesce(nullif(concat_ws(' ', c.first_name, c.last_name), ''), c.company_name),
  nullif(concat_ws(' ', v.year, v.make, v.model), ''), nullif(concat_ws(' ', e.first_name, e.last_name), ''),
  t.authorized_revenue, t.authorized_cost, t.authorized_profit, t.authorized_gp_percent, t.authorized_job_count,
  parts.revenue, parts.cost, parts.revenue - parts.cost,
  t.authorized_labor_revenue, t.authorized_labor_cost, t.authorized_labor_profit, t.authorized_labor_hours,
  sublets.revenue, sublets.cost, fees.total, jobs.discount + sale.order_discount, t.authorized_tax,
  own.revenue, own.cost, own.revenue - own.cost, margin.own, t.potential_total, t.potential_job_count,
  t.authorized_gp_percent, margin.own - t.authorized_gp_percent,
  CASE WHEN abs(margin.own - t.authorized_gp_percent) > 0.5 THEN format(
    'margin %s %% against the vendor''s %s %%: revenue %s against %s, cost %s against %s cents;'
    ' %s of %s labor lines without a technician''s rate', margin.own, t.authorized_gp_percent, own.revenue,
    t.authorized_revenue, own.cost, t.authorized_cost, labor.guessed, labor.lines) END,
  labor.each, 'TRUE_GP'
FROM (SELECT *, tm_id AS tm_repair_order_id FROM tekmetric.repair_orders WHERE deleted_at IS NULL) t
LEFT JOIN tekmetric.customers c ON c.shop_id = t.shop_id AND c.tm_id = t.tm_customer_id
LEFT JOIN tekmetric.vehicles v ON v.shop_id = t.shop_id AND v.tm_id = t.tm_vehicle_id
LEFT JOIN tekmetric.employees e ON e.shop_id = t.shop_id AND e.tm_id = t.tm_service_advisor_id
LEFT JOIN averages a ON a.shop_id = t.shop_id
CROSS JOIN LATERAL (
  SELECT count(*) AS authorized, coalesce(sum(j.discount), 0) AS discount FROM tekmetric.jobs j
  WHERE j.shop_id = t.shop_id AND j.tm_repair_order_id = t.tm_id AND j.authorized AND j.deleted_at IS NULL
) jobs
CROSS JOIN LATERAL (
  SELECT coalesce(sum(trunc(p.retail * f.factor)), 0) AS revenue, coalesce(sum(trunc(p.cost * f.factor)), 0) AS cost
  FROM tekmetric.jobs j
  JOIN tekmetric.job_parts p ON p.shop_id = j.shop_id AND p.tm_job_id = j.tm_id AND p.deleted_at IS NULL
  CROSS JOIN LATERAL (SELECT tekmetric.part_factor(p.quantity, p.retail, p.total) AS factor) f
  WHERE j.shop_id = t.shop_id AND j.tm_repair_order_id = t.tm_id AND j.authorized AND j.deleted_at IS NULL
) parts
CROSS JOIN LATERAL (
  SELECT coalesce(sum(s.retail), 0) AS revenue, coalesce(sum(s.cost), 0) AS cost
  FROM tekmetric.jobs j
  JOIN tekmetric.job_sublets s ON s.shop_id = j.shop_id AND s.tm_job_id = j.tm_id AND s.deleted_at IS NULL
  WHERE j.shop_id = t.shop_id AND j.tm_repair_order_id = t.tm_id AND j.authorized AND j.deleted_at IS NULL
) sublets
CROSS JOIN LATERAL (VALUES {moments}) moment (trigger, day)
LEFT JOIN LATERAL (
  SELECT s.labor FROM tekmetric.ro_snapshots s
  WHERE s.shop_id = t.shop_id AND s.tm_repair_order_id = t.tm_id AND s.snapshot_trigger = moment.trigger
    AND s.deleted_at IS NULL
  ORDER BY s.snapshot_date = moment.day DESC, s.snapshot_date DESC LIMIT 1
) before ON true
CROSS JOIN LATERAL (
  SELECT coalesce(sum(w.revenue), 0) AS revenue, coalesce(sum(w.cost), 0) AS cost,
    count(*) AS lines, count(*) FILTER (WHERE w.rate_source <> 'assigned') AS guessed,
    coalesce(jsonb_agg(to_jsonb(w) ORDER BY w.tm_job_id, w.line), '[]') AS each
  FROM (
    SELECT l.tm_job_id, l.line, l.tm_technician_id, trim_scale(coalesce(l.hours, 0)) AS hours,
      trunc(coalesce(l.hours * l.rate, 0)) AS revenue, rate.hourly_cost,
      trunc(coalesce(l.hours, 0) * rate.hourly_cost) AS cost, rate.rate_source
    FROM tekmetric.jobs j
    JOIN tekmetric.job_labor l ON l.shop_id = j.shop_id AND l.tm_job_id = j.tm_id AND l.deleted_at IS NULL
    LEFT JOIN tekmetric.employees w ON w.shop_id = l.shop_id AND w.tm_id = l.tm_technician_id
    LEFT JOIN LATERAL jsonb_to_recordset(before.labor)
      k (tm_job_id bigint, line text, tm_technician_id bigint, hourly_cost numeric, rate_source text)
      ON k.tm_job_id = l.tm_job_id AND k.line = l.line AND k.tm_technician_id IS NOT DISTINCT FROM l.tm_technician_id
    CROSS JOIN LATERAL (
      SELECT r.hourly_cost, r.rate_source FROM (VALUES
        (1, CASE WHEN k.rate_source = 'assigned' THEN k.hourly_cost END, 'assigned'),
        (2, l.tech_hourly_cost, 'assigned'),
        (3, w.hourly_rate, 'assigned'),
        (4, k.hourly_cost, k.rate_source),
        (5, a.rate, 'shop_avg'),
        (6, 2500, 'default')
      ) r (place, hourly_cost, rate_source)
      WHERE r.hourly_cost > 0 ORDER BY r.place LIMIT 1
    ) rate
    WHERE j.shop_id = t.shop_id AND j.tm_repair_order_id = t.tm_id AND j.authorized AND j.deleted_at IS NULL
  ) w
) labor
CROSS JOIN LATERAL (
  SELECT parts.revenue + labor.revenue + sublets.revenue - jobs.discount AS total,
    CASE WHEN jobs.authorized > 0 THEN coalesce(t.order_discount, 0) ELSE 0 END AS order_discount
) sale
CROSS JOIN LATERAL (
  SELECT coalesce(sum(
    CASE WHEN f.percentage > 0 AND sale.total > 0
      THEN least(trunc(sale.total * f.percentage / 100), CASE WHEN f.cap > 0 THEN f.cap END)
      ELSE f.amount END), 0) AS total
  FROM tekmetric.job_fees f
  WHERE f.shop_id = t.shop_id AND f.tm_repair_order_id = t.tm_id AND f.tm_job_id = 0 AND f.deleted_at IS NULL
    AND jobs.authorized > 0
) fees
CROSS JOIN LATERAL (
  SELECT sale.total + fees.total - sale.order_discount AS revenue, parts.cost + labor.cost + sublets.cost AS cost
) own
CROSS JOIN LATERAL (
  SELECT CASE WHEN own.revenue > 0 THEN round((own.revenue - own.cost) * 100 / own.revenue, 2) ELSE 0 END AS own
) margin
WHERE moment.day IS NOT NULL AND {touched}
"""

SNAPSHOTS = Derived(
    _table(
        "ro_snapshots",
        "shop_id tm_repair_order_id snapshot_date snapshot_trigger",
        f"ro_status ro_number customer_name vehicle_description advisor_name {FIGURES} tm_reported_gp_percent"
        " variance_percent variance_reason labor calculation_method",
    ),
    SNAPSHOTS_OF.replace("{moments}", "('posted', t.posted_date), ('completed', t.completed_date)"),
    touched="(t.shop_id, t.tm_repair_order_id) IN (SELECT * FROM tekmetric.changed_orders({since}))",
    keep="t.snapshot_trigger = 'manual'",
)

# All days of a changed order: a completed order that is posted later leaves the day of its completion. The days are
# computed again for every shop, since a query for days alone is planned well.
TOUCHED_DAYS = """t.metric_date = ANY (ARRAY(
  SELECT DISTINCT s.snapshot_date FROM tekmetric.ro_snapshots s
  JOIN tekmetric.changed_orders({since}) USING (shop_id, tm_repair_order_id)))"""

DAILY = Derived(
    _table(
        "daily_shop_metrics",
        "shop_id metric_date",
        f"ro_count ro_posted_count ro_completed_count {FIGURES} avg_ro_value avg_ro_profit avg_labor_rate"
        " gp_per_labor_hour authorization_rate source_snapshot_count calculation_method",
    ),
    """
WITH days AS (
  SELECT t.shop_id, t.metric_date, count(*) AS orders,
    count(*) FILTER (WHERE t.snapshot_trigger = 'posted') AS posted,
    count(*) FILTER (WHERE t.snapshot_trigger = 'completed') AS completed,
    coalesce(sum(t.authorized_revenue), 0) AS authorized_revenue,
    coalesce(sum(t.authorized_cost), 0) AS authorized_cost,
    coalesce(sum(t.authorized_profit), 0) AS authorized_profit,
    coalesce(sum(t.authorized_job_count), 0) AS authorized_job_count,
    coalesce(sum(t.parts_revenue), 0) AS parts_revenue, coalesce(sum(t.parts_cost), 0) AS parts_cost,
    coalesce(sum(t.parts_profit), 0) AS parts_profit,
    coalesce(sum(t.labor_revenue), 0) AS labor_revenue, coalesce(sum(t.labor_cost), 0) AS labor_cost,
    coalesce(sum(t.labor_profit), 0) AS labor_profit, coalesce(sum(t.labor_hours), 0) AS labor_hours,
    coalesce(sum(t.sublet_revenue), 0) AS sublet_revenue, coalesce(sum(t.sublet_cost), 0) AS sublet_cost,
    coalesce(sum(t.fees_total), 0) AS fees_total, coalesce(sum(t.discount_total), 0) AS discount_total,
    coalesce(sum(t.tax_total), 0) AS tax_total,
    coalesce(sum(t.true_revenue), 0) AS true_revenue, coalesce(sum(t.true_cost), 0) AS true_cost,
    coalesce(sum(t.true_profit), 0) AS true_profit,
    coalesce(sum(t.potential_revenue), 0) AS potential_revenue,
    coalesce(sum(t.potential_job_count), 0) AS potential_job_count
  FROM (SELECT *, snapshot_date AS metric_date FROM tekmetric.counted_snapshots()) t
  WHERE {touched} GROUP BY 1, 2
)
SELECT shop_id, metric_date, orders, posted, completed,
  authorized_revenue, authorized_cost, authorized_profit,
  round(authorized_profit * 100 / nullif(authorized_revenue, 0), 2), authorized_job_count,
  parts_revenue, parts_cost, parts_profit, labor_revenue, labor_cost, labor_profit, labor_hours,
  sublet_revenue, sublet_cost, fees_total, discount_total, tax_total,
  true_revenue, true_cost, true_profit, round(true_profit * 100 / nullif(true_revenue, 0), 2),
  potential_revenue, potential_job_count,
  trunc(authorized_revenue / orders), trunc(authorized_profit / orders),
  trunc(labor_revenue / nullif(labor_hours, 0)), trunc(labor_profit / nullif(labor_hours, 0)),
  round(authorized_revenue * 100 / nullif(potential_revenue, 0), 2), orders, 'FROM_RO_SNAPSHOTS'
FROM days
""",
    touched=TOUCHED_DAYS,
)

# Labor without a technician counts only in the shop's figures.
TECHNICIANS = Derived(
    _table(
        "tech_daily_metrics",
        "shop_id tm_technician_id metric_date",
        "hours_billed hourly_rate hourly_cost labor_revenue labor_cost labor_profit labor_gp_percent gp_per_hour"
        " jobs_worked ros_worked rate_sources",
    ),
    """
WITH days AS (
  SELECT t.shop_id, l.tm_technician_id, t.metric_date, sum(l.hours) AS hours, sum(l.revenue) AS revenue,
    sum(l.cost) AS cost, count(DISTINCT l.tm_job_id) AS jobs, count(DISTINCT t.tm_repair_order_id) AS orders,
    jsonb_strip_nulls(jsonb_build_object(
      'assigned', nullif(count(*) FILTER (WHERE l.rate_source = 'assigned'), 0),
      'shop_avg', nullif(count(*) FILTER (WHERE l.rate_source = 'shop_avg'), 0),
      'default', nullif(count(*) FILTER (WHERE l.rate_source = 'default'), 0)
    )) AS rate_sources
  FROM (SELECT *, snapshot_date AS metric_date FROM tekmetric.counted_snapshots()) t
  CROSS JOIN LATERAL jsonb_to_recordset(t.labor)
    l (tm_job_id bigint, tm_technician_id bigint, hours numeric, revenue numeric, cost numeric, rate_source text)
  WHERE l.tm_technician_id IS NOT NULL AND {touched} GROUP BY 1, 2, 3
)
SELECT shop_id, tm_technician_id, metric_date, hours,
  trunc(revenue / nullif(hours, 0)), trunc(cost / nullif(hours, 0)), revenue, cost, revenue - cost,
  round((revenue - cost) * 100 / nullif(revenue, 0), 2), trunc((revenue - cost) / nullif(hours, 0)),
  jobs, orders, rate_sources
FROM days
""",
    touched=TOUCHED_DAYS,
)

# In this order, since days are computed from snapshots.
DERIVED = (SNAPSHOTS, DAILY, TECHNICIANS)


def by_hand(shop_id: int, tm_id: int, day: date) -> sql.Composed:
    """Return the query for a manual snapshot of an order in any state: one row with the snapshots' columns, or none."""
    moment = sql.SQL("('manual', {}::date)").format(sql.Literal(day))
    order = sql.SQL("(t.shop_id, t.tm_id) = ({}, {})").format(sql.Literal(shop_id), sql.Literal(tm_id))
    return sql.SQL(SNAPSHOTS_OF).format(moments=moment, touched=order)
