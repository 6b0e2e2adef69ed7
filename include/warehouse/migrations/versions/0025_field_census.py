"""Which fields the records of each source have, in which types, and what has changed in that."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.field_census (
  source text NOT NULL,
  entity text NOT NULL,
  path text NOT NULL,
  place text NOT NULL,
  state text NOT NULL,
  reason text NOT NULL,
  types text[] NOT NULL,
  unreadable text[] NOT NULL,
  codes text[] NOT NULL,
  objects bigint,
  seen bigint,
  scanned_at timestamptz,
  vanished_at timestamptz,
  cut boolean NOT NULL DEFAULT false,
  first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (source, entity, path)
);
COMMENT ON TABLE confidence.field_census IS
  'One row for each field of a source''s records, with no values but the words of declared enumerations (codes). '
  'entity is the name of the table. The row with the empty path stands for the records themselves; its cut says that '
  'there were more paths than are kept. state: declared if a column reads the field, ignored for that reason, or kept '
  'in the column extra. place is the path of the objects that can have the field. objects, seen and '
  'scanned_at are those of the last whole scan that has seen it: how many objects there were at that place, and how '
  'many had the field. vanished_at: the first whole scan that has seen it in none of them. types: all that were seen. '
  'unreadable: those among them that the field''s column can''t read, and that it did not have at first.';

CREATE TABLE confidence.field_change (
  change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source text NOT NULL,
  entity text NOT NULL,
  path text NOT NULL,
  kind text NOT NULL,
  state text NOT NULL,
  detail text NOT NULL,
  run text NOT NULL,
  found_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON confidence.field_change (source, change_id);
COMMENT ON TABLE confidence.field_change IS
  'One row for each change in the fields of a source''s records: kind is new, vanished, back, retyped, renamed or '
  'new_code. detail is what that kind has to say: the new types, the new name, the new code.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE confidence.field_census, confidence.field_change")
