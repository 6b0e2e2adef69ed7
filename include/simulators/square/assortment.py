"""The invented seller's places, vendors and goods: every row is a function of seed and number.

Money is an amount in cents, instants are milliseconds since 1970 until they stand in a row.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from include.simulators.square.clock import instant
from include.simulators.square.config import Config
from include.simulators.square.ids import id_of, mix

Row = dict[str, Any]

_SECOND, _HOUR, _DAY = 1_000, 3_600_000, 86_400_000
START = int(datetime(2023, 1, 2, tzinfo=UTC).timestamp()) * _SECOND
END = int(datetime(2025, 12, 31, tzinfo=UTC).timestamp()) * _SECOND
MERCHANT = "MLSIMULATED01"
TAX_PERCENT, DISCOUNT_PERCENT = "8.25", "10"
STATES = ("IN_STOCK", "RESERVED_FOR_SALE", "WASTE", "IN_TRANSIT")

# city, district, postal code, time zone, latitude, longitude
_CITIES = (
    ("Fairhaven", "OR", "97001", "America/Los_Angeles", 45.52, -122.68),
    ("Millbrook", "CO", "80003", "America/Denver", 39.74, -104.99),
    ("Stonebridge", "AZ", "85004", "America/Phoenix", 33.45, -112.07),
    ("Easton", "IL", "60007", "America/Chicago", 41.88, -87.63),
    ("Harborview", "ME", "04101", "America/New_York", 43.66, -70.26),
)
_PRODUCTS = (
    "Sparkler",
    "Honey",
    "Candle",
    "Tea Towel",
    "Coffee Beans",
    "Ginger Jar",
    "Crème Brûlée Kit",
    "Wool Blanket",
)
_QUALITIES = ("Classic", "Garden", "Winter", "Harbor", "Little", "Grand")
_SIZES = ("Regular", "Large", "Small", "Gift Box")
_THEMES = ("Seasonal", "Kitchen", "Pantry", "Home", "Garden", "Gifts")
_TRADERS = ("Maple & Sons", "Northgate Supply", "Orchid Imports", "Pinewood Traders")
_ALERTS = ({"inventory_alert_type": "LOW_QUANTITY", "inventory_alert_threshold": 5}, {"inventory_alert_type": "NONE"})
_IN_BULK = tuple(START + (END - START) * place // 7 for place in (1, 3, 5))  # objects that were imported at one instant


def money(cents: int) -> Row:
    """An amount as the vendor writes it."""
    return {"amount": cents, "currency": "USD"}


@dataclass(frozen=True)
class Goods:
    """What an order's line needs to know of a variation; `weighed` goods have quantities with decimals."""

    name: str
    variation_name: str
    price: int
    weighed: bool
    taxed: bool
    version: int


class Assortment:
    """Everything but the sales."""

    def __init__(self, config: Config) -> None:
        """Raises ValueError where the sizes don't fit each other."""
        if config.variations < config.items:
            raise ValueError(f"{config.items} items need as many variations or more, not {config.variations}")
        if not config.locations:
            raise ValueError("a seller needs a location: the main one")
        self._config = config
        self._salt = mix(config.seed) & 0xFFFF_FFFF

    @cached_property
    def location_ids(self) -> list[str]:
        """Ids of the locations that were there from the start; the first is the main one."""
        return [id_of("locations", number) for number in range(self._config.locations)]

    def location(self, number: int) -> Row:
        """A location."""
        city, district, postal_code, timezone, latitude, longitude = _CITIES[number % len(_CITIES)]
        days = ("MON", "TUE", "WED", "THU", "FRI", "SAT")
        hours = [{"day_of_week": day, "start_local_time": "09:00:00", "end_local_time": "18:00:00"} for day in days]
        return {
            "id": id_of("locations", number),
            "name": f"{city} {number + 1}",
            "address": {
                "address_line_1": f"{100 + number} Main Street",
                "locality": city,
                "administrative_district_level_1": district,
                "postal_code": postal_code,
                "country": "US",
            },
            "timezone": timezone,
            "capabilities": ["CREDIT_CARD_PROCESSING", "AUTOMATIC_TRANSFERS"],
            "status": "INACTIVE" if 0 < number == self._config.locations - 1 else "ACTIVE",
            "created_at": instant(START - _DAY + number * _HOUR),
            "merchant_id": MERCHANT,
            "country": "US",
            "language_code": "en-US",
            "currency": "USD",
            "phone_number": f"+1 555-555-{number:04}",
            "business_name": "Simulated Goods",
            "type": "MOBILE" if number % 7 == 5 else "PHYSICAL",
            "website_url": "goods.example",
            "business_hours": {"periods": hours},
            "business_email": f"shop{number + 1}@goods.example",
            "description": f"Our shop in {city}",
            "coordinates": {"latitude": latitude, "longitude": longitude},
            "mcc": "5999",
            "twitter_username": "simulatedgoods",
            "instagram_username": "simulated.goods",
            "facebook_url": "facebook.example/simulatedgoods",
            "logo_url": f"https://img.example/{id_of('locations', number)}/logo",
        }

    def vendor(self, number: int) -> Row:
        """A vendor, of whom goods are bought."""
        chance = self._chance("vendors", number)
        created, updated = self._times(chance)
        return {
            "id": id_of("vendors", number),
            "created_at": instant(created),
            "updated_at": instant(updated),
            "name": f"{_TRADERS[number % len(_TRADERS)]} {number + 1}",
            "address": {"address_line_1": f"{number + 1} Dock Road", "locality": "Port Example", "country": "US"},
            "contacts": [
                {
                    "id": f"CON{number:07}",
                    "name": "Ada Abel",
                    "email_address": f"orders@vendor{number + 1}.example",
                    "phone_number": f"+1 555-556-{number % 10_000:04}",
                    "ordinal": 0,
                }
            ],
            "account_number": f"A-{chance % 100_000:05}",
            "version": 1 + chance % 5,
            "status": "INACTIVE" if number % 7 == 6 else "ACTIVE",
        }

    def category(self, number: int) -> Row:
        """A CATEGORY; every fourth one lies in another."""
        parent = number // 4 * 4
        data: Row = {
            "name": f"{_THEMES[number % len(_THEMES)]} {number + 1}",
            "category_type": "REGULAR_CATEGORY",
            "is_top_level": parent == number,
            "online_visibility": True,
        }
        if parent != number:
            above = id_of("categories", parent)
            data |= {"parent_category": {"id": above, "ordinal": number}, "root_category": above}
        else:
            data |= {"channels": [f"CH{number:07}"], "image_ids": [f"IMG{number:07}"]}
            data |= {"availability_period_ids": [f"PERIOD{number:07}"]}
        return self._object("CATEGORY", "categories", number) | {"category_data": data}

    def tax(self) -> Row:
        """The one TAX."""
        data = {
            "name": "Sales Tax",
            "calculation_phase": "TAX_SUBTOTAL_PHASE",
            "inclusion_type": "ADDITIVE",
            "percentage": TAX_PERCENT,
            "applies_to_custom_amounts": True,
            "enabled": True,
        }
        return self._object("TAX", "taxes", 0) | {"tax_data": data}

    def discount(self) -> Row:
        """The one DISCOUNT."""
        data = {"name": "Regulars", "discount_type": "FIXED_PERCENTAGE", "percentage": DISCOUNT_PERCENT}
        return self._object("DISCOUNT", "discounts", 0) | {"discount_data": data}

    def unit(self) -> Row:
        """The one MEASUREMENT_UNIT, in which weighed goods are sold."""
        return self._object("MEASUREMENT_UNIT", "units", 0) | {"measurement_unit_data": measurement_unit()}

    def item(self, number: int) -> Row:
        """An ITEM, without its variations."""
        chance = self._chance("items", number)
        category = id_of("categories", chance % max(1, self._config.categories))
        description = f"{_QUALITIES[chance % len(_QUALITIES)]} goods, number {number + 1}"
        data: Row = {
            "name": self._name(number),
            "description": description,
            "description_html": f"<p>{description}</p>",
            "description_plaintext": description,
            "is_taxable": self._taxed(number),
            "product_type": ("REGULAR", "REGULAR", "REGULAR", "FOOD_AND_BEV")[chance % 4],
            "is_archived": number % 17 == 16,
        }
        if self._taxed(number):
            data["tax_ids"] = [id_of("taxes", 0)]
        if self._config.categories and number % 19 != 18:
            reference = {"id": category, "ordinal": chance % 1_000}
            data |= {"category_id": category, "categories": [reference], "reporting_category": reference}
        if data["product_type"] == "FOOD_AND_BEV":
            data["food_and_beverage_details"] = {"calorie_count": 80 + chance % 400}
            data["modifier_list_info"] = [
                {"modifier_list_id": "MODLIST1", "min_selected_modifiers": -1, "max_selected_modifiers": -1}
            ]
        if number % 7 == 3:
            data |= {"item_options": [{"item_option_id": "OPTION1"}], "label_color": "593c00"}
        return self._object("ITEM", "items", number) | self._presence(number) | _custom(number) | {"item_data": data}

    def variation(self, number: int) -> Row:
        """An ITEM_VARIATION."""
        chance, item = self._chance("variations", number), self.item_of(number)
        goods = self.goods(number)
        place = number - self.first_variation(item)
        data: Row = {
            "item_id": id_of("items", item),
            "name": goods.variation_name,
            "sku": f"SKU-{number:06}",
            "ordinal": place,
            "pricing_type": "VARIABLE_PRICING" if number % 23 == 22 else "FIXED_PRICING",
            "track_inventory": True,
            "sellable": True,
            "stockable": True,
            "default_unit_cost": money(goods.price // 2),
        }
        if number % 23 != 22:
            data["price_money"] = money(goods.price)
        if number % 3 == 0:
            data["upc"] = f"{chance % 10**12:012}"
        if goods.weighed:
            data["measurement_unit_id"] = id_of("units", 0)
        if number % 5 == 1:
            data["location_overrides"] = [self._override(chance, goods.price)]
        whole = self._object("ITEM_VARIATION", "variations", number) | self._presence(item) | _custom(number)
        if self._config.vendors and number % 4 != 3:
            data["item_variation_vendor_infos"] = [self._vendor_info(number, whole, goods.price)]
        return whole | {"item_variation_data": data}

    def item_of(self, variation: int) -> int:
        """The number of the item that a variation of the start belongs to."""
        return variation * self._config.items // max(1, self._config.variations)

    def first_variation(self, item: int) -> int:
        """The number of an item's first variation."""
        return -(-item * self._config.variations // max(1, self._config.items))

    def goods(self, variation: int) -> Goods:
        """What a variation is sold as; also of one that the catalog has no more, or not yet."""
        chance, item = self._chance("variations", variation), self.item_of(variation)
        return Goods(
            self._name(item),
            _SIZES[(variation - self.first_variation(item)) % len(_SIZES)],
            99 + chance % 80 * 50 + chance % 7,
            item % 9 == 4,
            self._taxed(item),
            self._times(chance)[1],
        )

    def counted(self, variation: int, place: int, state: int) -> int:
        """When a variation was last counted at a location in one of STATES; 0 where it never was."""
        chance = self._count_chance(variation, place, state)
        return 0 if state and chance % 12 else START + (chance >> 20) % (END - START)

    def count(self, variation: int, place: int, state: int) -> Row:
        """The inventory count of a variation at a location in one of STATES."""
        chance = self._count_chance(variation, place, state)
        whole = 1 + chance % 9 if state else chance % 200
        weighed = self.goods(variation).weighed
        return {
            "catalog_object_id": id_of("variations", variation),
            "catalog_object_type": "ITEM_VARIATION",
            "state": STATES[state],
            "location_id": self.location_ids[place],
            "quantity": f"{whole}.{(chance >> 8) % 99_999 + 1:05}".rstrip("0") if weighed else f"{whole}",
            "calculated_at": instant(self.counted(variation, place, state)),
        }

    def _count_chance(self, variation: int, place: int, state: int) -> int:
        return self._chance("counts", (variation * 64 + place) * len(STATES) + state)

    def _name(self, item: int) -> str:
        return f"{_QUALITIES[item // len(_PRODUCTS) % len(_QUALITIES)]} {_PRODUCTS[item % len(_PRODUCTS)]} {item + 1}"

    def _taxed(self, item: int) -> bool:
        return item % 6 != 5

    def _chance(self, kind: str, number: int) -> int:
        return mix((self._salt << 24) + (sum(kind.encode()) << 32) + number)

    def _times(self, chance: int) -> tuple[int, int]:
        """When an object was made and last changed; every fifth was imported in bulk."""
        if chance % 5 == 0:
            made = _IN_BULK[(chance >> 8) % len(_IN_BULK)]
            return made, made
        made = START + (chance >> 8) % (END - START - 60 * _DAY)
        return made, made + (chance >> 40) % (60 * _DAY)

    def _object(self, kind: str, ids: str, number: int) -> Row:
        changed = self._times(self._chance(ids, number))[1]
        return {
            "type": kind,
            "id": id_of(ids, number),
            "updated_at": instant(changed),
            "version": changed,
            "is_deleted": False,
            "present_at_all_locations": True,
        }

    def _presence(self, item: int) -> Row:
        """Some items are sold in a few places only, some everywhere but there."""
        some = [place for number, place in enumerate(self.location_ids) if number % 3 == item % 3]
        if item % 11 == 10:
            return {"present_at_all_locations": False, "present_at_location_ids": some}
        if item % 13 == 12:
            return {"present_at_all_locations": True, "absent_at_location_ids": some}
        return {}

    def _override(self, chance: int, price: int) -> Row:
        place = self.location_ids[chance % len(self.location_ids)]
        sold_out = {"sold_out": True} if chance % 3 == 0 else {}
        return {
            "location_id": place,
            "price_money": money(price + 100),
            "pricing_type": "FIXED_PRICING",
            "track_inventory": True,
            **_ALERTS[chance % 2],
            **sold_out,
        }

    def _vendor_info(self, variation: int, whole: Row, price: int) -> Row:
        return {
            "type": "ITEM_VARIATION_VENDOR_INFO",
            "id": id_of("vendor_infos", variation),
            "updated_at": whole["updated_at"],
            "version": whole["version"],
            "is_deleted": False,
            "present_at_all_locations": True,
            "item_variation_vendor_info_data": {
                "vendor_id": id_of("vendors", variation % self._config.vendors),
                "item_variation_id": whole["id"],
                "ordinal": 0,
                "sku": f"V-{variation:06}",
                "price_money": money(price // 2),
            },
        }


def measurement_unit() -> Row:
    """The pound, with three decimals."""
    return {"measurement_unit": {"weight_unit": "IMPERIAL_POUND", "type": "TYPE_WEIGHT"}, "precision": 3}


def _custom(number: int) -> Row:
    """The attribute that the seller has defined, of some objects."""
    if number % 5 != 2:
        return {}
    value = {"name": "Shelf", "type": "STRING", "string_value": f"S{number % 40}"}
    return {"custom_attribute_values": {"shelf": value | {"custom_attribute_definition_id": "CUSTOM1", "key": "shelf"}}}
