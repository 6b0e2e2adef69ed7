"""The invented shop: every base row is a pure function of seed and id, so that a million rows need no memory.

Money and quantities of documents are decimal texts, money of products and payments is a JSON number (a
`Decimal` here), instants are ISO 8601 in UTC with milliseconds. Ids leave gaps, into which drift can insert.
"""

from array import array
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

from include.simulators.repairshopr.values import DAY, HOUR, MINUTE, SECOND, Row, instant, totals

ID_STEP = 3
LINE_PARENTS = {"invoices": "invoice_id", "estimates": "estimate_id"}  # the field that names a line's owner
_FIRST_ID = {
    "customers": 1_000_001,
    "invoices": 100_000_001,
    "line_items": 200_000_001,
    "payments": 300_000_001,
    "products": 2_000_001,
    "tickets": 400_000_001,
    "estimates": 500_000_001,
}
_FIRST_NUMBER = 20_001  # of invoices, tickets and estimates; never reaches the ids, so a number is no id

_START = int(datetime(2022, 1, 3, tzinfo=UTC).timestamp()) * SECOND
_END = int(datetime(2025, 6, 30, tzinfo=UTC).timestamp()) * SECOND

_FIRST_NAMES = (
    "Ada",
    "Bruno",
    "Chloé",
    "Dmitri",
    "Elif",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kaya",
    "Liv",
)
_LAST_NAMES = ("Abel", "Brandt", "Castellanos", "Dvořák", "Eriksen", "Fontaine", "Grünwald", "Hale", "Ito")
_BUSINESSES = ("Harbor", "Juniper", "Kettle", "Lantern", "Maple", "Northgate", "Orchid 🌸", "Pinewood")
_TRADES = ("Dental", "Bakery", "Surveyors", "Books", "Cycles", "Legal", "Veterinary")
_CITIES = (("Fairhaven", "OR", "97001"), ("Millbrook", "WA", "98002"), ("Stonebridge", "ID", "83003"))
_PROBLEMS = ("Hardware", "Virus", "Network", "Data recovery", "Screen")
_TICKET_STATUSES = ("New", "In Progress", "Waiting for Parts", "Resolved")
_ESTIMATE_STATUSES = ("Fresh", "Sent", "Approved", "Declined")
_METHODS = ("Cash", "Check", "Credit Card")
# name, item, category, price, cost, taxable
_CATALOGUE = (
    ("Bench diagnosis", "LABOR", "Services", "95.0", "0.0", False),
    ("SSD 1 TB", "PART", "Hardware", "129.99", "84.5", True),
    ("Data transfer", "LABOR", "Services", "75.0", "0.0", False),
    ("Screen assembly", "PART", "Hardware", "219.0", "151.25", True),
    ("Remote support", "LABOR", "Services", "60.0", "0.0", False),
    ("Battery", "PART", "Hardware", "64.95", "31.4", True),
    ("Charger 65 W", "PART", "Accessories", "39.9", "17.05", True),
)
_QUANTITIES = ("1.0", "1.0", "2.0", "1.5", "0.25", "3.0")

_MASK = (1 << 64) - 1


def _mix(number: int) -> int:
    """A 64 bit hash that spreads neighbouring numbers."""
    number = (number ^ (number >> 31)) * 0x7FB5D329728EA185 & _MASK
    number = (number ^ (number >> 27)) * 0x81DADEF4BC2DD44D & _MASK
    return number ^ (number >> 33)


def _reference(chance: int, value: int) -> int | str | None:
    """An optional id as the vendor really sends it: a number, null, or now and then an empty text."""
    match chance % 16:
        case 0:
            return ""
        case 1 | 2 | 3 | 4 | 5:
            return None
        case _:
            return value


class Shop:
    """The base rows of one account.

    Invoices and estimates share one sequence of documents, in which their lines lie: document `d` owns the
    lines `[_first_line[d], _first_line[d + 1])`.
    """

    def __init__(self, seed: int, sizes: Mapping[str, int]) -> None:
        """Raises ValueError when there are line items but nothing that could own them."""
        self._sizes = sizes
        self._salt = {name: _mix(seed * 1_000 + place) for place, name in enumerate(_FIRST_ID)}
        self._documents = sizes["invoices"] + sizes["estimates"]
        if sizes["line_items"] and not self._documents:
            raise ValueError("line items need invoices or estimates: give at least one of them")
        self._lay_out_documents()
        self._makers: dict[str, Callable[[int, int], Row]] = {
            "customers": self._customer,
            "invoices": self._invoice,
            "line_items": self._line_item,
            "payments": self._payment,
            "products": self._product,
            "tickets": self._ticket,
            "estimates": self._estimate,
        }

    def ids(self, resource: str) -> range:
        """The ids of a resource's base rows, ascending."""
        first = _FIRST_ID[resource]
        return range(first, first + ID_STEP * self._sizes[resource], ID_STEP)

    def row(self, resource: str, row_id: int) -> Row:
        """The base row of an id; for an id outside `ids` a plausible row of the same shape."""
        return self._makers[resource](row_id, (row_id - _FIRST_ID[resource]) // ID_STEP)

    def updated_at(self, resource: str, row_id: int) -> str:
        """`updated_at` of a base row without making the row."""
        index = (row_id - _FIRST_ID[resource]) // ID_STEP
        return self._updated(self._created(index, resource), self._hash(resource, index))

    def line_ids(self, resource: str, parent_id: int) -> range:
        """The ids of the base lines of an invoice or estimate, ascending."""
        ids = self.ids(resource)
        if parent_id not in ids:
            return range(0)
        place = self._places[resource][ids.index(parent_id)]
        return self.ids("line_items")[self._first_line[place] : self._first_line[place + 1]]

    def line_owner(self, line_id: int) -> tuple[str, int]:
        """Resource and id of the invoice or estimate that a base line belongs to."""
        return self._document(self._owner_of(self.ids("line_items").index(line_id)))

    def payment_ids(self, invoice_id: int) -> range:
        """The ids of the base payments of an invoice."""
        invoices, payments = self.ids("invoices"), self.ids("payments")
        if invoice_id not in invoices:
            return range(0)
        place = invoices.index(invoice_id)
        first, last = (-(-at * len(payments) // len(invoices)) for at in (place, place + 1))
        return payments[first:last]

    def invoice_id(self, number: int) -> int:
        """The id that the base invoice of a number has."""
        return _FIRST_ID["invoices"] + ID_STEP * (number - _FIRST_NUMBER)

    def _lay_out_documents(self) -> None:
        lines, documents, salt = self._sizes["line_items"], self._documents, self._salt["line_items"]
        self._first_line = array("q", [0])
        self._owner = array("q")  # the document of each line
        self._places: dict[str, array] = {"invoices": array("q"), "estimates": array("q")}
        for place in range(documents):
            # The boundaries move by up to 45 % of a document, so sizes vary and the total stays exact.
            jitter = _mix(salt + place) % 901 - 450 if place + 1 < documents else 0
            end = lines * ((place + 1) * 1_000 + jitter) // (documents * 1_000)
            self._owner.extend([place] * (end - self._first_line[-1]))
            self._first_line.append(end)
            self._places[self._document(place)[0]].append(place)

    def _document(self, place: int) -> tuple[str, int]:
        """Resource and id of a document; estimates are spread evenly among the invoices."""
        estimates, documents = self._sizes["estimates"], max(1, self._documents)
        before = place * estimates // documents
        if (place + 1) * estimates // documents > before:
            return "estimates", _FIRST_ID["estimates"] + ID_STEP * before
        return "invoices", _FIRST_ID["invoices"] + ID_STEP * (place - before)

    def _hash(self, resource: str, index: int) -> int:
        return _mix(self._salt[resource] + index)

    def _any_id(self, resource: str, chance: int) -> int:
        return _FIRST_ID[resource] + ID_STEP * (chance % max(1, self._sizes[resource]))

    def _created(self, index: int, resource: str) -> int:
        """Milliseconds; rises with the index, as the ids do."""
        if resource == "line_items":
            place = self._owner_of(index)
            return self._document_created(place) + MINUTE * (1 + max(0, index - self._first_line[place]))
        if resource in self._places:
            places = self._places[resource]
            return self._document_created(places[index] if 0 <= index < len(places) else self._documents)
        return _START + (_END - _START) * max(0, index) // (self._sizes[resource] + 1)

    def _document_created(self, place: int) -> int:
        return _START + (_END - _START) * place // (self._documents + 1)

    def _owner_of(self, index: int) -> int:
        return self._owner[max(0, min(index, len(self._owner) - 1))] if self._owner else 0

    def _updated(self, created: int, chance: int) -> str:
        delay = (chance >> 9) % (HOUR if chance & 256 else 30 * DAY)
        return instant(min(created + delay, _END))

    def _times(self, index: int, chance: int, resource: str) -> Row:
        created = self._created(index, resource)
        return {"created_at": instant(created), "updated_at": self._updated(created, chance)}

    def _business(self, customer_id: int) -> str:
        chance = self._hash("customers", customer_id)
        return f"{_BUSINESSES[chance % len(_BUSINESSES)]} {_TRADES[(chance >> 8) % len(_TRADES)]}"

    def _line_item(self, row_id: int, index: int) -> Row:
        chance = self._hash("line_items", index)
        place = self._owner_of(index)
        product_id = self._any_id("products", chance)
        name, item, category, price, cost, taxable = _CATALOGUE[product_id % len(_CATALOGUE)]
        row = {
            "id": row_id,
            **self._times(index, chance, "line_items"),
            "invoice_id": None,
            "item": item,
            "name": name,
            "cost": cost,
            "price": price,
            "quantity": _QUANTITIES[(chance >> 20) % len(_QUANTITIES)],
            "product_id": _reference(chance >> 24, product_id),
            "taxable": taxable,
            "discount_percent": "10.0" if (chance >> 32) % 20 == 0 else None,
            "position": max(0, index - self._first_line[place]) + 1,
            "invoice_bundle_id": None,
            "discount_dollars": None,
            "product_category": category,
        }
        owner, owner_id = self._document(place)
        row[LINE_PARENTS[owner]] = owner_id
        return row

    def _document_totals(self, resource: str, row_id: int) -> Row:
        return totals(self.row("line_items", line_id) for line_id in self.line_ids(resource, row_id))

    def _invoice(self, row_id: int, index: int) -> Row:
        chance = self._hash("invoices", index)
        customer_id = self._any_id("customers", chance)
        created = self._created(index, "invoices")
        day = created - created % DAY
        return {
            "id": row_id,
            "customer_id": customer_id,
            "customer_business_then_name": self._business(customer_id),
            "number": str(_FIRST_NUMBER + index),
            **self._times(index, chance, "invoices"),
            "date": instant(day),
            "due_date": instant(day + 15 * DAY),
            **self._document_totals("invoices", row_id),
            "verified_paid": False,
            "tech_marked_paid": False,
            "is_paid": chance % 3 > 0,
            "ticket_id": _reference(chance >> 8, self._any_id("tickets", chance >> 12)),
            "user_id": 12 + (chance >> 16) % 4,
            "location_id": _reference(chance >> 20, 3),
            "contact_id": _reference(chance >> 24, 800 + (chance >> 28) % 50),
            "po_number": "",
            "note": None,
            "pdf_url": f"https://shop.example/invoices/{row_id}.pdf",
            "hardwarecost": (None, Decimal("12.5"), "0.0", "84.5")[(chance >> 30) % 4],
        }

    def _estimate(self, row_id: int, index: int) -> Row:
        chance = self._hash("estimates", index)
        customer_id = self._any_id("customers", chance)
        created = self._created(index, "estimates")
        return {
            "id": row_id,
            "customer_id": customer_id,
            "customer_business_then_name": self._business(customer_id),
            "number": str(_FIRST_NUMBER + index),
            "status": _ESTIMATE_STATUSES[(chance >> 8) % len(_ESTIMATE_STATUSES)],
            **self._times(index, chance, "estimates"),
            "date": instant(created - created % DAY),
            **self._document_totals("estimates", row_id),
            "ticket_id": _reference(chance >> 16, self._any_id("tickets", chance >> 20)),
            "invoice_id": None,
            "location_id": _reference(chance >> 24, 3),
            "contact_id": _reference(chance >> 36, 800 + (chance >> 40) % 50),
            "user_id": 12 + (chance >> 44) % 4,
            "note": f"Valid for {chance % 30 + 1} days" if chance % 4 else None,
            "employee": _FIRST_NAMES[(chance >> 28) % len(_FIRST_NAMES)],
            "pdf_url": f"https://shop.example/estimates/{row_id}.pdf",
        }

    def _customer(self, row_id: int, index: int) -> Row:
        chance = self._hash("customers", index)
        first = _FIRST_NAMES[(chance >> 16) % len(_FIRST_NAMES)]
        last = _LAST_NAMES[(chance >> 24) % len(_LAST_NAMES)]
        business = self._business(row_id) if chance % 3 else None
        city, state, postcode = _CITIES[(chance >> 32) % len(_CITIES)]
        return {
            "id": row_id,
            "firstname": first,
            "lastname": last,
            "fullname": f"{first} {last}",
            "business_name": business,
            "business_then_name": business or f"{first} {last}",
            "email": f"customer{row_id}@mail.example",
            "phone": f"555{chance % 10_000_000:07}",
            "mobile": None,
            **self._times(index, chance, "customers"),
            "address": f"{1 + (chance >> 8) % 900} Main Street",
            "address_2": None,
            "city": city,
            "state": state,
            "zip": postcode,
            "notes": None,
            "get_sms": True,
            "opt_out": False,
            "disabled": chance % 11 == 5,
            "no_email": False,
            "location_id": _reference(chance >> 40, 3),
            "referred_by": "",
            "tax_rate_id": None,
            "properties": {},
            "contacts": [],
            "invoice_cc_emails": f"books{row_id}@mail.example" if chance % 7 == 0 else "",
            "location_name": "Main Street" if chance % 2 else None,
            "online_profile_url": f"https://shop.example/profiles/{row_id}",
            "pdf_url": f"https://shop.example/customers/{row_id}.pdf",
        }

    def _product(self, row_id: int, index: int) -> Row:
        chance = self._hash("products", index)
        name, _, category, price, cost, taxable = _CATALOGUE[row_id % len(_CATALOGUE)]
        return {
            "id": row_id,
            "name": f"{name} #{index + 1}",
            "description": name,
            "price_retail": Decimal(price),
            "price_cost": Decimal(cost),
            "price_wholesale": Decimal(cost),
            "quantity": (chance >> 8) % 40,
            "disabled": chance % 12 == 0,
            "taxable": taxable,
            "maintain_stock": True,
            "product_category": category,
            "upc_code": f"{chance % 10**12:012}",
            "sort_order": None,
            "reorder_at": None,
            "notes": None,
            **self._times(index, chance, "products"),
        }

    def _payment(self, row_id: int, index: int) -> Row:
        chance = self._hash("payments", index)
        invoice = index * self._sizes["invoices"] // max(1, self._sizes["payments"])
        customer_id = self._any_id("customers", self._hash("invoices", invoice))
        times = self._times(index, chance, "payments")
        return {
            "id": row_id,
            **times,
            "success": chance % 25 > 0,
            "payment_amount": Decimal(chance % 90_000) / 100,
            "invoice_ids": [_FIRST_ID["invoices"] + ID_STEP * invoice, None][: 1 + (chance >> 20) % 2],
            "ref_num": f"R{row_id}",
            "applied_at": times["created_at"],
            "payment_method": _METHODS[(chance >> 24) % len(_METHODS)],
            "transaction_response": None,
            "signature_name": None,
            "signature_date": None,
            "signature_data": None,
            "customer": {"id": customer_id, "business_then_name": self._business(customer_id)},
        }

    def _ticket(self, row_id: int, index: int) -> Row:
        chance = self._hash("tickets", index)
        customer_id = self._any_id("customers", chance)
        status = _TICKET_STATUSES[(chance >> 8) % len(_TICKET_STATUSES)]
        problem = _PROBLEMS[(chance >> 16) % len(_PROBLEMS)]
        times = self._times(index, chance, "tickets")
        comment = {
            "id": row_id * 10,
            "ticket_id": row_id,
            "subject": "Initial issue",
            "body": f"{problem} reported",
            "tech": "customer-reply",
            "hidden": False,
            "user_id": None,
            "created_at": times["created_at"],
            "updated_at": times["created_at"],
        }
        return {
            "id": row_id,
            "number": _FIRST_NUMBER + index,
            "subject": f"{problem} of {self._business(customer_id)}",
            "customer_id": customer_id,
            "customer_business_then_name": self._business(customer_id),
            "status": status,
            **times,
            "resolved_at": times["updated_at"] if status == "Resolved" else None,
            "start_at": times["created_at"] if chance % 3 else None,
            "due_date": None,
            "problem_type": problem,
            "ticket_type_id": 1 + chance % 2,
            "priority": ("1 High", "2 Normal", None)[(chance >> 12) % 3],
            "user_id": 12 + (chance >> 24) % 4,
            "location_id": _reference(chance >> 28, 3),
            "contact_id": _reference(chance >> 32, 800 + (chance >> 36) % 50),
            "properties": {},
            "comments": [comment][: (chance >> 40) % 2],
        }
