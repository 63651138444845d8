"""SQLModel tables: columns and nothing else. The truth about constraints and policies is the migrations."""

from models.tables import actions, events, execution, llm, money, records, tenancy, work

__all__ = ["actions", "events", "execution", "llm", "money", "records", "tenancy", "work"]
