from hypothesis import settings

# A busy machine is slow now and then; that is no fault of a rule.
settings.register_profile("rules", deadline=None)
settings.load_profile("rules")
