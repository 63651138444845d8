"""Attacks on the host's side of the agent's two ports: each is a function of ``inside/bridge.py``."""

from __future__ import annotations

from tests.escape.table import Attempt, Defence

_PASS_ALL = frozenset({Defence.BRIDGE})
_REFLECTED = frozenset({Defence.OUTSIDE})

_PATHS = {
    "another_path": "another route of the control plane is asked",
    "another_path_by_loopback": "…by the guest's port",
    "dots": "…by ..",
    "escaped_dots": "…by %2e%2e",
    "twice_escaped_dots": "…escaped twice",
    "escaped_slash": "…by %2f",
    "backslash": "…by backslashes",
    "path_parameters": "…by ..; as some servers read it",
    "doubled_slashes": "…by // at the beginning",
    "fragment": "…behind a fragment",
    "absolute_form": "…by a whole URL in the request line",
    "other_scheme": "a file is asked for by URL",
    "connect_a_tunnel": "CONNECT reaches the other side",
    "options_star": "OPTIONS * reaches it",
    "trace_request": "TRACE reaches it",
    "unlisted_method": "a listed path by another method",
    "made_up_method": "a method that nobody knows",
    "route_of_the_other_socket": "a route of the control plane on the gateway's socket",
    "decide_its_own_approval": "it decides its own approval",
    "admin_of_the_gateway": "the gateway's administration is asked",
    "query_with_line_ends": "a query brings a line end",
    "endless_path": "a path of 120 kB arrives",
    "http2_preface": "the bridge speaks HTTP/2 past its list",
    "upgrade": "the connection is upgraded",
    "websocket": "a WebSocket is opened",
}
_FORGED = {
    "forged_authorization": "a credential of the agent's arrives",
    "second_authorization": "…as a second one, in other letters",
    "authorization_dropped": "the run's credential is dropped by a hop-by-hop list",
    "forged_attempt": "another attempt is claimed",
    "forged_tenant": "another tenant is claimed",
    "forged_by_underscore": "…by an underscore for a dash",
    "forged_sender": "another sender is claimed",
    "forged_forwarded": "…by Forwarded",
    "forged_host": "another host is named",
    "forged_cookie": "a cookie arrives",
    "forged_method": "another method is claimed",
    "forged_url": "another path is claimed",
    "forged_identity": "an identity of the proxy's is claimed",
    "forged_provider_key": "a key for the provider arrives",
    "forged_by_trailer": "a trailer arrives as a header",
    "forged_by_line_end": "a header behind a lone carriage return",
    "forged_by_folded_line": "a header in a folded line",
    "forged_by_space_before_colon": "a header with a space before its colon",
    "forged_by_nul": "a header behind a NUL",
}
_SMUGGLED = {
    "smuggle_length_and_chunks": "a request inside a body: length and chunks",
    "smuggle_chunks_and_length": "…chunks and length",
    "smuggle_two_lengths": "…two lengths",
    "smuggle_a_list_of_lengths": "…a list of lengths",
    "smuggle_negative_length": "…a negative length",
    "smuggle_signed_length": "…a length with a sign",
    "smuggle_strange_encoding": "…an encoding that is nearly chunked",
    "smuggle_two_encodings": "…two encodings",
    "smuggle_folded_encoding": "…an encoding in a folded line",
    "smuggle_bare_line_feeds": "…lines that end in a line feed alone",
    "smuggle_by_chunk_extension": "…a chunk's extension with a line feed",
    "smuggle_by_huge_chunk": "…a chunk's size beyond 64 bits",
    "smuggle_body_of_a_get": "…as the body of a GET",
    "smuggle_behind_an_old_version": "…behind HTTP/1.0",
    "pipelined": "a forbidden request rides behind a good one",
    "truncated_body": "half a body arrives as a whole one",
}
_LARGE = {
    "oversized_body": "a body of 10 MiB arrives",
    "oversized_in_chunks": "…in chunks, its size unsaid",
    "oversized_header": "a header of 1 MiB arrives",
    "a_thousand_headers": "forty thousand headers arrive",
    "packed_body": "a packed body arrives",
}
_CROWDS = {
    "slow_heads": "200 half heads keep a good request out",
    "slow_bodies": "200 half bodies keep a good request out",
    "crowd_then_leave": "700 connections leave the bridge deaf",
}
_SAVED = {
    "save_above_the_folder": "an artifact is saved above the folder",
    "save_above_by_escapes": "…by %2e%2e",
    "save_at_the_root": "…by an absolute path",
    "save_with_a_nul": "…with a NUL in its name",
    "save_with_an_escaped_slash": "…by %2f",
}
_NO_FILE = "no name of an agent's names a file out here, by construction: files are named by number and digest"
_SIDE_BY_SIDE = "connections are served side by side, by construction: there is no defence to switch off"

ATTEMPTS = [
    *(Attempt(f"bridge.{name}", won, _PASS_ALL) for name, won in (_PATHS | _FORGED | _SMUGGLED | _LARGE).items()),
    *(Attempt(f"bridge.{name}", won, no_control=_SIDE_BY_SIDE) for name, won in _CROWDS.items()),
    *(Attempt(f"bridge.{name}", won, no_control=_NO_FILE) for name, won in _SAVED.items()),
    Attempt("bridge.warrant_in_an_answer", "an answer holds the run's credential", _REFLECTED),
    Attempt(
        "bridge.guest_frames",
        "the agent's socket takes it for a guest",
        no_control="the two protocols share neither socket nor code",
    ),
]
