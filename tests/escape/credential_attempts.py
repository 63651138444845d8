"""Attacks of one run on another's things, carried out at the API with the credentials that a run has.

Each control is the same request by whom it belongs to, which succeeds: what is switched off is that the two differ.
"""

from __future__ import annotations

from tests.escape.table import Attempt, Defence

_OWN = frozenset({Defence.WHOSE})
_NAMES = {
    "read_anothers_action": "another run's action is read",
    "read_an_action_of_another_tenant": "an action of another company's is read",
    "take_a_permit_by_its_key": "another run's permit is answered to the same idempotency key",
    "change_what_was_permitted": "a permit is answered for other parameters than were permitted",
    "read_anothers_question": "another run's question and its answer are read",
    "read_anothers_state": "another run's saved state is read",
    "overwrite_anothers_state": "another run's saved state is replaced",
    "claim_another_attempt": "a later attempt is claimed by a header",
    "warrant_signed_by_itself": "a warrant of the agent's own making is taken",
    "warrant_without_a_signature": "a warrant that says it needs no signature is taken",
    "warrant_signed_with_the_public_key": "a warrant signed with the public key as a secret is taken",
    "warrant_with_other_claims": "claims are exchanged under a true signature",
    "warrant_to_perform": "a warrant to perform an effect opens the agent's door",
    "decide_its_own_approval": "a warrant decides its own approval",
    "read_as_a_person": "a warrant reads the company's work items",
    "after_its_end": "the warrant of an ended run is taken",
    "after_a_later_attempt": "the warrant of an earlier attempt is taken",
    "after_its_lease": "the warrant is taken beyond its lease",
    "after_a_cancel": "the warrant of a cancelled item is taken",
    "after_a_halt": "the warrant is taken after a halt",
}
ATTEMPTS = [Attempt(f"credentials.{name}", won, _OWN) for name, won in _NAMES.items()]
