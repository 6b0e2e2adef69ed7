import json
import pytest
from psycopg import sql
from tests.contract.test_mirrors import MIRRORS
from include.confidence.queries.field_census import read_fields
from tests.contract.test_extra import KEEPING, twisted

@pytest.mark.parametrize("source", MIRRORS)
def test_show(filled, conn, source):
    filled.scan()
    with open(f"/tmp/fl/fields_{source}.txt","w") as f:
        for e in read_fields(conn, source):
            f.write(f"== {e.entity} records {e.records}\n")
            for x in e.fields:
                if x.state!="declared":
                    f.write(f"   {x.state:8} {x.path} {x.types} {x.share} {x.reason}\n")
            f.write("   declared: "+" ".join(x.path for x in e.fields if x.state=="declared")+"\n")
