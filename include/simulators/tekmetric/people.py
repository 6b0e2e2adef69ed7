"""Invented customers, their vehicles, and employees, as the vendor's rows before its noise."""

from typing import Any

from include.simulators.tekmetric.config import Shop

Row = dict[str, Any]

ADVISOR, TECHNICIAN = 2, 3
_ROLES = {1: "SHOP_ADMIN", ADVISOR: "SERVICE_ADVISOR", TECHNICIAN: "TECHNICIAN", 4: "OWNER"}
_STAFF = (ADVISOR, TECHNICIAN, TECHNICIAN, 4, TECHNICIAN, 1, ADVISOR)
_MAKES = (("Toyota", "Camry"), ("Honda", "Civic"), ("Ford", "F-150"), ("Subaru", "Outback"), ("Jeep", "Wrangler"))
_ENGINES = ("2.5L L4", "2.0L L4", "3.5L V6", "2.5L H4", "3.6L V6")


def employee(shop: Shop, employee_id: int, place: int, created: str) -> Row:
    """The `place`-th employee of a shop: advisors, technicians, an owner and an administrator by turns."""
    role = _STAFF[place % len(_STAFF)]
    technician = role == TECHNICIAN
    name = _ROLES[role].replace("_", " ").title().split()[-1]
    return {
        "id": employee_id,
        "shopId": shop.tm_id,
        "firstName": name,
        "lastName": str(place + 1),
        "email": f"employee{employee_id}@example.com",
        "phone": f"555-01{employee_id % 100:02}",
        "username": f"employee{employee_id}",
        "employeeRole": {"code": role, "name": _ROLES[role]},
        "employeePayType": {"code": "HOURLY" if technician else "SALARY"},
        "hourlyRate": 2_800 + employee_id * 137 % 1_400 if technician else None,
        "salary": None if technician else 6_200_000,
        "canPerformWork": technician,
        "canClockIn": technician,
        "canSell": role == ADVISOR,
        "canTech": technician,
        "disabled": place == 4,
        "deactivated": False,
        "createdDate": created,
        "updatedDate": created,
    }


def customer(shop: Shop, customer_id: int, created: str) -> Row:
    """Persons and, every seventh, a business."""
    business = customer_id % 7 == 0
    return {
        "id": customer_id,
        "shopId": shop.tm_id,
        "firstName": "Customer",
        "lastName": str(customer_id),
        "companyName": f"Company {customer_id}" if business else None,
        "email": [f"customer{customer_id}@example.com"] if customer_id % 5 else [],
        "phone": [
            {"number": f"555-02{customer_id % 100:02}", "type": "Mobile", "primary": True},
            {"number": f"555-03{customer_id % 100:02}", "type": "Home", "primary": False},
        ][: customer_id % 3],
        "address": {
            "address1": f"{customer_id} Example Road",
            "address2": None,
            "city": "Springfield",
            "state": "NY",
            "zip": "10001",
            "country": "US",
        }
        if customer_id % 6
        else None,
        "customerType": {"id": 2, "code": "BUSINESS", "name": "Business"}
        if business
        else {"id": 1, "code": "PERSON", "name": "Person"},
        "taxExempt": business,
        "okForMarketing": bool(customer_id % 2),
        "leadSource": "Referral" if customer_id % 4 == 0 else None,
        "notes": None,
        "createdDate": created,
        "updatedDate": created,
    }


def vehicle(shop: Shop, vehicle_id: int, customer_id: int, created: str) -> Row:
    """Makes, models and the like with their ids, which the vendor doesn't always tell."""
    kind = vehicle_id % len(_MAKES)
    make, model = _MAKES[kind]
    return {
        "id": vehicle_id,
        "shopId": shop.tm_id,
        "customerId": customer_id,
        "year": 2008 + vehicle_id % 16,
        "make": {"id": 40 + kind, "name": make},
        "model": {"id": 700 + kind, "name": model},
        "subModel": {"id": 90, "name": "LE"} if vehicle_id % 3 else None,
        "engine": {"id": 3_000 + kind, "name": _ENGINES[kind]},
        "transmission": "Automatic",
        "driveType": "AWD",
        "bodyStyle": "Sedan",
        "vin": f"1EXAMPLE0{vehicle_id:08}",
        "licensePlate": f"EX{vehicle_id % 10_000:04}",
        "licenseState": "NY",
        "unitNumber": None,
        "color": "Blue",
        "odometer": 20_000 + vehicle_id * 7_919 % 120_000,
        "note": None,
        "createdDate": created,
        "updatedDate": created,
    }
