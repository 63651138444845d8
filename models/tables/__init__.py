"""SQLModel tables: columns and nothing else. The truth about constraints and policies is the migrations."""

from models.tables import execution, money, records, tenancy, work

__all__ = ["execution", "money", "records", "tenancy", "work"]
