"""The warehouse of Tekmetric's shops: schema `tekmetric`."""

from alembic import op

from include.warehouse.migrations.ddl import allow, create_mirror, create_role, drop_role, foreign_key

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INSTANT = "timestamptz"
SERVICE, SHOP = "tekmetric_service", "tekmetric_shop"
# Who a row is for is told by the role alone: a setting could be set by whoever reads.
OWN_SHOP = "current_user = 'tekmetric_shop_' || {}"


def _columns(type_: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, type_)


def _cents(*names: str) -> dict[str, str]:
    return _columns("bigint", *names)


# What an order comes to, all jobs (potential) and those that the customer agreed to (authorized).
SUMS = ("total", "subtotal", "tax", "discount", "job_count", "parts_total", "labor_total", "sublet_total", "fees_total")
# What a snapshot tells of an order, and a day of its orders. `true` is our own calculation, line by line.
FIGURES = {
    **_cents("authorized_revenue", "authorized_cost", "authorized_profit"),
    "authorized_gp_percent": "numeric",
    "authorized_job_count": "bigint",
    **_cents("parts_revenue", "parts_cost", "parts_profit", "labor_revenue", "labor_cost", "labor_profit"),
    "labor_hours": "numeric",
    **_cents("sublet_revenue", "sublet_cost", "fees_total", "discount_total", "tax_total"),
    **_cents("true_revenue", "true_cost", "true_profit"),
    "true_gp_percent": "numeric",
    "potential_revenue": "bigint",
    "potential_job_count": "bigint",
}
ITEM = {"tm_repair_order_id": "bigint NOT NULL", "tm_id": "bigint", "name": "text"}

# Key and data columns. Money is in cents, instants are in UTC, a date is the shop's own day.
TABLES = {
    "shops": (
        {"tm_id": "bigint"},
        {
            "name": "text",
            "timezone": "text NOT NULL",
            "default_labor_rate": "bigint",
            "default_parts_margin": "numeric",
            "default_tax_rate": "numeric",
            "tm_metadata": "jsonb",
        },
    ),
    "employees": (
        {"shop_id": "bigint", "tm_id": "bigint"},
        {
            **_columns("text", "first_name", "last_name", "email", "phone", "username"),
            "role": "bigint",
            "role_name": "text",
            "disabled": "boolean",
            "deactivated": "boolean",
            "hourly_rate": "bigint",
            "salary": "bigint",
            "pay_type": "text",
            "commission_rate": "numeric",
            **_columns("date", "hire_date", "termination_date"),
            **_columns("boolean", "can_clock_in", "can_sell", "can_tech", "can_perform_work"),
            **_columns(INSTANT, "created_date", "updated_date"),
        },
    ),
    "customers": (
        {"shop_id": "bigint", "tm_id": "bigint"},
        {
            **_columns("text", "first_name", "last_name", "company_name"),
            "email": "text[]",
            **_columns("text", "phone_primary", "phone_primary_type", "phone_secondary", "phone_secondary_type"),
            **_columns("text", "address_line1", "address_line2", "city", "state", "zip", "country"),
            "customer_type_id": "bigint",
            "customer_type_name": "text",
            **_columns("boolean", "tax_exempt", "ok_for_marketing"),
            "lead_source": "text",
            "lead_source_id": "bigint",
            "notes": "text",
            **_columns(INSTANT, "created_date", "updated_date"),
        },
    ),
    "vehicles": (
        {"shop_id": "bigint", "tm_id": "bigint"},
        {
            "tm_customer_id": "bigint",
            "year": "bigint",
            "make": "text",
            "make_id": "bigint",
            "model": "text",
            "model_id": "bigint",
            "sub_model": "text",
            "sub_model_id": "bigint",
            "engine": "text",
            "engine_id": "bigint",
            "transmission": "text",
            "transmission_id": "bigint",
            "drive_type": "text",
            "body_style": "text",
            **_columns("text", "vin", "license_plate", "license_state", "unit_number", "fleet_number", "color"),
            "odometer": "bigint",
            "notes": "text",
            **_columns(INSTANT, "created_date", "updated_date"),
        },
    ),
    "repair_orders": (
        {"shop_id": "bigint", "tm_id": "bigint"},
        {
            **_columns("bigint", "tm_customer_id", "tm_vehicle_id", "tm_service_advisor_id", "ro_number"),
            "status": "text NOT NULL",
            "status_id": "bigint",
            **_columns(INSTANT, "created_date", "updated_date", "promised_date", "dropped_off_date", "picked_up_date"),
            "posted_at": INSTANT,
            "posted_date": "date",
            "completed_at": INSTANT,
            "completed_date": "date",
            **_cents(*(f"potential_{name}" for name in SUMS)),
            **_cents(*(f"authorized_{name}" for name in SUMS)),
            **_cents("authorized_revenue", "authorized_cost", "authorized_profit"),
            "authorized_gp_percent": "numeric",
            **_cents("authorized_labor_revenue", "authorized_labor_cost", "authorized_labor_profit"),
            "authorized_labor_hours": "numeric",
            **_cents("order_discount", "discount_total", "fees_total", "shop_supplies_total", "epa_total"),
            "tax_rate": "numeric",
            **_cents("amount_paid", "balance_due"),
            "label": "text",
            "label_id": "bigint",
            "notes": "text",
        },
    ),
    "jobs": (
        {"shop_id": "bigint", "tm_id": "bigint"},
        {
            "tm_repair_order_id": "bigint NOT NULL",
            "name": "text",
            "description": "text",
            "job_category": "text",
            "job_category_id": "bigint",
            "canned_job_id": "bigint",
            "authorized": "boolean NOT NULL",
            "authorized_date": INSTANT,
            "declined": "boolean NOT NULL",
            "declined_date": INSTANT,
            "declined_reason": "text",
            **_cents("total", "subtotal", "discount", "tax", "parts_total", "parts_cost", "labor_total"),
            "labor_hours": "numeric",
            **_cents("sublet_total", "sublet_cost", "fees_total", "gross_profit_amount"),
            "gross_profit_percent": "numeric",
            **_cents("parts_tax_total", "labor_tax_total", "fees_tax_total"),
            "sort_order": "bigint",
        },
    ),
    "job_parts": (
        {"shop_id": "bigint", "tm_job_id": "bigint", "line": "text"},
        {
            **ITEM,
            **_columns("text", "brand", "part_number", "description", "part_type"),
            "quantity": "numeric(12,4)",
            **_cents("retail", "cost", "core_charge", "total"),
            "vendor": "text",
            "vendor_id": "bigint",
            **_columns("boolean", "ordered", "received", "backordered"),
        },
    ),
    "job_labor": (
        {"shop_id": "bigint", "tm_job_id": "bigint", "line": "text"},
        {
            **ITEM,
            "description": "text",
            "labor_type": "text",
            "skill_level": "text",
            "hours": "numeric",
            **_cents("rate", "total"),
            "tm_technician_id": "bigint",
            "technician_name": "text",
            "tech_hourly_cost": "bigint",
        },
    ),
    "job_sublets": (
        {"shop_id": "bigint", "tm_job_id": "bigint", "line": "text"},
        {
            **ITEM,
            "description": "text",
            "vendor": "text",
            **_cents("cost", "retail"),
            **_columns("text", "invoice_number", "po_number"),
        },
    ),
    "job_fees": (
        # The fees of an order itself have no job to tell them from those of another order.
        {"shop_id": "bigint", "tm_repair_order_id": "bigint", "tm_job_id": "bigint", "line": "text"},
        {
            "tm_id": "bigint",
            "name": "text",
            "amount": "bigint",
            "percentage": "numeric",
            **_cents("cap", "total"),
            "taxable": "boolean",
        },
    ),
    "ro_snapshots": (
        {"shop_id": "bigint", "tm_repair_order_id": "bigint", "snapshot_date": "date", "snapshot_trigger": "text"},
        {
            "ro_status": "text NOT NULL",
            "ro_number": "bigint",
            **_columns("text", "customer_name", "vehicle_description", "advisor_name"),
            **FIGURES,
            "tm_reported_gp_percent": "numeric",
            "variance_percent": "numeric",
            "variance_reason": "text",
            "labor": "jsonb",
            "calculation_method": "text NOT NULL",
        },
    ),
    "daily_shop_metrics": (
        {"shop_id": "bigint", "metric_date": "date"},
        {
            **_columns("bigint", "ro_count", "ro_posted_count", "ro_completed_count"),
            **FIGURES,
            **_cents("avg_ro_value", "avg_ro_profit", "avg_labor_rate", "gp_per_labor_hour"),
            "authorization_rate": "numeric",
            "source_snapshot_count": "bigint",
            "calculation_method": "text NOT NULL",
        },
    ),
    "tech_daily_metrics": (
        {"shop_id": "bigint", "tm_technician_id": "bigint", "metric_date": "date"},
        {
            "hours_billed": "numeric",
            **_cents("hourly_rate", "hourly_cost", "labor_revenue", "labor_cost", "labor_profit"),
            "labor_gp_percent": "numeric",
            **_columns("bigint", "gp_per_hour", "jobs_worked", "ros_worked"),
            "rate_sources": "jsonb",
        },
    ),
}


def _uid(table: str, *keys: str) -> str:
    """tekmetric.uid, written out: a call for every row takes three times as long."""
    return "md5('{}/' || {})::uuid".format(table, " || '/' || ".join(map(_text, keys)))


def _text(key: str) -> str:
    """A date as text depends on settings, the number of its day doesn't."""
    return f"({key} - DATE '1970-01-01')::text" if key.endswith("_date") else f"{key}::text"


def _reference(table: str, column: str) -> tuple[str, str]:
    """The uuid of the row that `column` names, null where it names none."""
    return "uuid", _uid(table, "shop_id", column)


ORDER = {"repair_order_id": _reference("repair_orders", "tm_repair_order_id")}
JOB = {"job_id": _reference("jobs", "tm_job_id"), **ORDER}

# Beside `id`, which every table has.
COMPUTED = {
    "employees": {
        "status": ("text", "CASE WHEN disabled OR deactivated THEN 'INACTIVE' ELSE 'ACTIVE' END"),
    },
    "vehicles": {"customer_id": _reference("customers", "tm_customer_id")},
    "repair_orders": {
        "customer_id": _reference("customers", "tm_customer_id"),
        "vehicle_id": _reference("vehicles", "tm_vehicle_id"),
        "service_advisor_id": _reference("employees", "tm_service_advisor_id"),
    },
    "jobs": ORDER,
    "job_parts": JOB,
    "job_labor": {
        **JOB,
        "technician_id": _reference("employees", "tm_technician_id"),
        # What the line itself tells; for the others a snapshot finds a rate, and keeps it.
        "labor_cost": (
            "bigint",
            "CASE WHEN tech_hourly_cost > 0 THEN trunc(coalesce(hours, 0) * tech_hourly_cost)::bigint END",
        ),
        "rate_source": ("text", "CASE WHEN tech_hourly_cost > 0 THEN 'assigned' END"),
    },
    "job_sublets": JOB,
    "job_fees": {
        "job_id": ("uuid", f"CASE WHEN tm_job_id <> 0 THEN {_uid('jobs', 'shop_id', 'tm_job_id')} END"),
        **ORDER,
        "fee_type": ("text", "tekmetric.fee_type(name)"),
    },
    "ro_snapshots": ORDER,
    "tech_daily_metrics": {"technician_id": _reference("employees", "tm_technician_id")},
}

OF_ORDER = foreign_key("shop_id, tm_repair_order_id", "tekmetric.repair_orders (shop_id, tm_id)", cascade=True)
OF_JOB = foreign_key("shop_id, tm_job_id", "tekmetric.jobs (shop_id, tm_id)", cascade=True)
# A vendor's id stands for one living item. Checked at the end, since an item may move to another job.
ONE_ITEM = (
    "EXCLUDE USING btree (shop_id WITH =, tm_id WITH =) WHERE (tm_id IS NOT NULL AND deleted_at IS NULL)"
    " DEFERRABLE INITIALLY DEFERRED"
)

# Beside the reference to the shop. Orders may name customers, vehicles and employees that are gone.
CONSTRAINTS = {
    "jobs": (OF_ORDER,),
    "job_parts": (OF_ORDER, OF_JOB, ONE_ITEM),
    "job_labor": (OF_ORDER, OF_JOB, ONE_ITEM),
    "job_sublets": (OF_ORDER, OF_JOB, ONE_ITEM),
    # Those of the order itself have no job: tm_job_id 0.
    "job_fees": (OF_ORDER, ONE_ITEM),
    "ro_snapshots": (OF_ORDER, "CHECK (snapshot_trigger IN ('posted', 'completed', 'manual'))"),
}

# A vehicle comes with these ids or with the names alone, as the vendor's list or its page of one vehicle has it.
UNHASHED = {"vehicles": ("make_id", "model_id", "sub_model_id", "engine_id", "transmission_id")}

FUNCTIONS = """
CREATE FUNCTION tekmetric.uid(name text, VARIADIC keys text[]) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT CASE WHEN array_position(keys, NULL) IS NULL THEN md5(name || '/' || array_to_string(keys, '/'))::uuid END
$$;
COMMENT ON FUNCTION tekmetric.uid IS
  'The id of the row of the table `name` with that key, the same after a rebuild; null where a part of it is null. '
  'Of a date the key has the days since 1970.';

CREATE FUNCTION tekmetric.fee_type(name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN name ILIKE '%shop%' AND name ILIKE '%suppl%' THEN 'shop_supplies'
    WHEN name ILIKE '%environ%' THEN 'environmental'
    WHEN name ILIKE '%haz%' THEN 'hazmat'
    WHEN name ILIKE '%dispos%' THEN 'disposal'
    ELSE 'other' END
$$;
COMMENT ON FUNCTION tekmetric.fee_type IS 'The category of a fee, by the words in its name.';

CREATE FUNCTION tekmetric.part_factor(quantity numeric, retail bigint, total bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN quantity IS NULL OR quantity <= 0 THEN 1
    WHEN quantity > 1 AND total > 0 AND abs(retail * quantity - total) > total * 0.01
      AND abs(retail - total) <= total * 0.01 THEN 1
    ELSE quantity END
$$;
COMMENT ON FUNCTION tekmetric.part_factor IS
  'What a part''s retail and cost are to be multiplied by: the vendor shows them for one piece or, at times, for the '
  'whole line, which its total tells within 1 %.';
"""

STATEMENTS = """
CREATE INDEX ON tekmetric.vehicles (shop_id, tm_customer_id);
CREATE INDEX ON tekmetric.repair_orders (shop_id, updated_date);
CREATE INDEX ON tekmetric.repair_orders (shop_id, posted_date);
CREATE INDEX ON tekmetric.repair_orders (shop_id, tm_customer_id);
CREATE INDEX ON tekmetric.jobs (shop_id, tm_repair_order_id);
CREATE INDEX ON tekmetric.job_parts (shop_id, tm_repair_order_id);
CREATE INDEX ON tekmetric.job_labor (shop_id, tm_repair_order_id);
CREATE INDEX ON tekmetric.job_sublets (shop_id, tm_repair_order_id);
CREATE INDEX ON tekmetric.ro_snapshots (snapshot_date, shop_id);
-- The metrics ask what a sync has written.
CREATE INDEX ON tekmetric.repair_orders (sync_id);
CREATE INDEX ON tekmetric.jobs (sync_id);
CREATE INDEX ON tekmetric.job_parts (sync_id);
CREATE INDEX ON tekmetric.job_labor (sync_id);
CREATE INDEX ON tekmetric.job_sublets (sync_id);
CREATE INDEX ON tekmetric.job_fees (sync_id);
CREATE INDEX ON tekmetric.ro_snapshots (sync_id);

COMMENT ON COLUMN tekmetric.ro_snapshots.snapshot_trigger IS
  'posted or completed: computed; manual: written by people, and left alone.';
COMMENT ON COLUMN tekmetric.ro_snapshots.labor IS
  'The authorized labor, line by line, with the rate that it was reckoned with.';
COMMENT ON COLUMN tekmetric.job_fees.tm_job_id IS '0: a fee of the order itself.';

CREATE FUNCTION tekmetric.changed_orders(since bigint) RETURNS TABLE (shop_id bigint, tm_repair_order_id bigint)
LANGUAGE sql STABLE AS $$
  SELECT shop_id, tm_id FROM tekmetric.repair_orders WHERE sync_id > since
  UNION SELECT shop_id, tm_repair_order_id FROM tekmetric.jobs WHERE sync_id > since
  UNION SELECT shop_id, tm_repair_order_id FROM tekmetric.job_parts WHERE sync_id > since
  UNION SELECT shop_id, tm_repair_order_id FROM tekmetric.job_labor WHERE sync_id > since
  UNION SELECT shop_id, tm_repair_order_id FROM tekmetric.job_sublets WHERE sync_id > since
  UNION SELECT shop_id, tm_repair_order_id FROM tekmetric.job_fees WHERE sync_id > since
  UNION SELECT shop_id, tm_repair_order_id FROM tekmetric.ro_snapshots WHERE sync_id > since
$$;
COMMENT ON FUNCTION tekmetric.changed_orders IS 'The orders of which later syncs than that one wrote something.';

CREATE FUNCTION tekmetric.counted_snapshots() RETURNS SETOF tekmetric.ro_snapshots LANGUAGE sql STABLE AS $$
  SELECT s.* FROM tekmetric.ro_snapshots s
  JOIN tekmetric.repair_orders o ON o.shop_id = s.shop_id AND o.tm_id = s.tm_repair_order_id AND o.deleted_at IS NULL
  WHERE s.deleted_at IS NULL AND NOT EXISTS (
    SELECT FROM tekmetric.ro_snapshots better
    WHERE better.shop_id = s.shop_id AND better.tm_repair_order_id = s.tm_repair_order_id AND better.deleted_at IS NULL
      AND (array_position(ARRAY['manual', 'completed', 'posted'], better.snapshot_trigger), better.snapshot_date)
        > (array_position(ARRAY['manual', 'completed', 'posted'], s.snapshot_trigger), s.snapshot_date))
$$;
COMMENT ON FUNCTION tekmetric.counted_snapshots IS
  'The snapshots that sums count: of each order that is not deleted one, posted before completed before manual.';

CREATE TABLE tekmetric.tm_raw_payloads (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  shop_id bigint NOT NULL REFERENCES tekmetric.shops (tm_id) DEFERRABLE INITIALLY DEFERRED,
  endpoint text NOT NULL,
  tm_entity_id bigint,
  payload json NOT NULL,
  run text NOT NULL,
  fetched_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL DEFAULT now() + interval '7 days'
);
CREATE INDEX ON tekmetric.tm_raw_payloads (expires_at);
COMMENT ON TABLE tekmetric.tm_raw_payloads IS 'What the vendor answered, kept for a few days to look things up in.';

INSERT INTO confidence.writer (source) VALUES ('tekmetric');
"""

# Whoever may read customers sees theirs; a name, a plate or a free text may tell who it is, a street where.
CUSTOMERS_ANALYTICS = """
CREATE VIEW tekmetric.customers_analytics WITH (security_invoker = true) AS
SELECT c.id, c.shop_id, c.tm_id, c.customer_type_id, c.customer_type_name, c.tax_exempt, c.ok_for_marketing,
  c.lead_source, c.lead_source_id, c.city, c.state, left(c.zip, 3) AS zip_prefix, c.country,
  coalesce(cardinality(c.email), 0) > 0 AS has_email, c.phone_primary IS NOT NULL AS has_phone,
  (SELECT count(*) FROM tekmetric.vehicles v
   WHERE v.shop_id = c.shop_id AND v.tm_customer_id = c.tm_id AND v.deleted_at IS NULL) AS vehicle_count,
  (SELECT count(*) FROM tekmetric.repair_orders o
   WHERE o.shop_id = c.shop_id AND o.tm_customer_id = c.tm_id AND o.deleted_at IS NULL) AS repair_order_count,
  c.created_date, c.updated_date
FROM tekmetric.customers c WHERE c.deleted_at IS NULL;
COMMENT ON VIEW tekmetric.customers_analytics IS 'Customers without personal data, for dashboards.';
"""

# The log and watermarks are of all sources. Shop roles may not read them, so these views do it with their
# owner's rights, and tell each role its rows themselves.
SYNC_VIEWS = """
CREATE FUNCTION tekmetric.visible(shop_id bigint) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT coalesce(current_user = 'tekmetric_shop_' || shop_id, false) OR pg_has_role('tekmetric_service', 'MEMBER')
$$;
COMMENT ON FUNCTION tekmetric.visible IS 'Whether the role that asks may see what is this shop''s.';

CREATE VIEW tekmetric.sync_cursors WITH (security_barrier = true) AS
SELECT * FROM (
  SELECT substring(partition FROM '^[0-9]+')::bigint AS shop_id, entity AS entity_type, updated_at AS last_synced_at,
    watermark AS last_tm_updated, version AS last_tm_id,
    jsonb_build_object('partition', partition, 'counts', counts, 'sync_id', sync_id) AS cursor_data
  FROM confidence.sync_state WHERE source = 'tekmetric'
) s WHERE tekmetric.visible(shop_id);
COMMENT ON VIEW tekmetric.sync_cursors IS
  'How far each shop is in step: its watermarks in confidence.sync_state. Without a shop: what no shop has to itself.';

CREATE VIEW tekmetric.sync_log WITH (security_barrier = true) AS
SELECT * FROM (
  SELECT l.sync_id AS id, c.shop_id,
    CASE WHEN l.kind = 'sync' THEN coalesce(l.reason, 'incremental') ELSE l.kind END AS sync_type,
    CASE l.state WHEN 'success' THEN 'completed' ELSE l.state END AS status,
    l.started_at, l.finished_at AS completed_at, round(l.duration_seconds * 1000)::bigint AS duration_ms,
    NULL::bigint AS records_fetched, c.created AS records_created, c.updated AS records_updated,
    c.deleted AS records_deleted, NULL::bigint AS records_skipped, NULL::bigint AS error_count, NULL AS errors
  FROM confidence.sync_log l CROSS JOIN LATERAL (
    SELECT (key ->> 'shop_id')::bigint AS shop_id, count(*) FILTER (WHERE operation = 'insert') AS created,
      count(*) FILTER (WHERE operation = 'update') AS updated, count(*) FILTER (WHERE operation = 'delete') AS deleted
    FROM confidence.change_log WHERE sync_id = l.sync_id AND key ? 'shop_id' GROUP BY 1
  ) c
  WHERE l.source = 'tekmetric'
  UNION ALL
  SELECT sync_id, NULL, CASE WHEN kind = 'sync' THEN coalesce(reason, 'incremental') ELSE kind END,
    CASE state WHEN 'success' THEN 'completed' ELSE state END, started_at, finished_at,
    round(duration_seconds * 1000)::bigint, rows_read, rows_inserted, rows_updated, rows_deleted, rows_unchanged,
    rows_failed, error
  FROM confidence.sync_log WHERE source = 'tekmetric'
) s WHERE tekmetric.visible(shop_id);
COMMENT ON VIEW tekmetric.sync_log IS
  'The syncs of confidence.sync_log: what each changed in each shop, and, without a shop, the whole; only there stands '
  'the error, which may be about any shop.';
"""


def upgrade() -> None:
    create_role(SERVICE)
    create_role(SHOP)
    # Whoever migrates, and so owns the tables, is of the service too; else the views would show it nothing.
    op.execute(
        f"DO $$ BEGIN IF NOT pg_has_role('{SERVICE}', 'MEMBER') THEN GRANT {SERVICE} TO CURRENT_USER; END IF; END $$"
    )
    op.execute("CREATE SCHEMA tekmetric")
    op.execute(f"GRANT USAGE ON SCHEMA tekmetric TO {SERVICE}, {SHOP}")
    op.execute(FUNCTIONS)
    for name, (key, columns) in TABLES.items():
        of_shop = [foreign_key("shop_id", "tekmetric.shops (tm_id)")] if "shop_id" in key else []
        create_mirror(
            "tekmetric",
            name,
            key,
            columns,
            computed={"id": ("uuid NOT NULL UNIQUE", _uid(name, *key)), **COMPUTED.get(name, {})},
            constraints=[*of_shop, *CONSTRAINTS.get(name, ())],
            unhashed=UNHASHED.get(name, ()),
        )
    op.execute(STATEMENTS)
    for name in (*TABLES, "tm_raw_payloads"):
        column = "tm_id" if name == "shops" else "shop_id"
        allow("tekmetric", name, SERVICE, "ALL", "true")
        allow("tekmetric", name, SHOP, "SELECT", OWN_SHOP.format(column))
    op.execute(CUSTOMERS_ANALYTICS)
    op.execute(SYNC_VIEWS)
    for name in ("customers_analytics", "sync_cursors", "sync_log"):
        op.execute(f"GRANT SELECT ON tekmetric.{name} TO {SERVICE}, {SHOP}")


def downgrade() -> None:
    op.execute("DROP SCHEMA tekmetric CASCADE")
    op.execute("DELETE FROM confidence.writer WHERE source = 'tekmetric'")
    drop_role(SHOP)
    drop_role(SERVICE)
