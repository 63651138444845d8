"""The Lua scripts of the second tier of money: each is one atomic step.

Keys of a reservation `r`: the hash `money:{r}` (identity, token, limit, charged, held, closed), the hash
`money:{r}:holds` (call → `amount|minute|tokens|what it is about`), and `money:{r}:<minute>`, the rates of one minute of
Redis's clock. The stream `money:ledger` has what was charged and is not in PostgreSQL yet.

Amounts are integers below 2^53, which Lua's numbers hold exactly. The keys of one script lie in several slots: one
server or a primary with replicas, not a cluster.
"""

from __future__ import annotations

OPEN = """
-- KEYS money, holds, boot; ARGV boot, identity, token, limit, charged
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {'lost'} end
local known = redis.call('HMGET', KEYS[1], 'identity', 'token')
if known[1] and tonumber(known[2]) >= tonumber(ARGV[3]) then
  if known[1] ~= ARGV[2] then return {'lost'} end
  return {'open'}
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'identity', ARGV[2], 'token', ARGV[3], 'limit', ARGV[4], 'charged', ARGV[5],
  'held', 0, 'closed', 0)
redis.call('PERSIST', KEYS[1])
return {'open'}
"""
"""What an older opening left is written over: PostgreSQL has closed that one, so all of it is in `charged`."""

HOLD = """
-- KEYS money, holds; ARGV identity, call, most, least, most tokens, least tokens, rpm, tpm, about
local m = redis.call('HMGET', KEYS[1], 'identity', 'limit', 'charged', 'held', 'closed')
if not m[1] then return {'missing'} end
if m[1] ~= ARGV[1] then return {'lost'} end
if m[5] == '1' then return {'closed'} end
local held = redis.call('HGET', KEYS[2], ARGV[2])
if held then
  local amount, tokens = string.match(held, '^(%d+)|%d+|(%d+)|')
  return {'held', tonumber(amount), tonumber(tokens)}
end
local limit, charged, held = tonumber(m[2]), tonumber(m[3]), tonumber(m[4])
local amount = math.min(tonumber(ARGV[3]), math.max(limit - charged - held, 0))
if amount < tonumber(ARGV[4]) then return {'short', limit, charged, held} end
local now = tonumber(redis.call('TIME')[1])
local minute = math.floor(now / 60)
local window = KEYS[1] .. ':' .. string.format('%.0f', minute)
local w = redis.call('HMGET', window, 'calls', 'tokens')
local calls, spent = tonumber(w[1] or 0), tonumber(w[2] or 0)
if calls + 1 > tonumber(ARGV[7]) then return {'rpm', tonumber(ARGV[7]), calls, 60 - now % 60} end
local tokens = math.min(tonumber(ARGV[5]), math.max(tonumber(ARGV[8]) - spent, 0))
if tokens < tonumber(ARGV[6]) then return {'tpm', tonumber(ARGV[8]), spent, 60 - now % 60} end
redis.call('HINCRBY', KEYS[1], 'held', amount)
redis.call('HSET', KEYS[2], ARGV[2], string.format('%.0f|%.0f|%.0f|', amount, minute, tokens) .. ARGV[9])
redis.call('HINCRBY', window, 'calls', 1)
redis.call('HINCRBY', window, 'tokens', tokens)
if calls == 0 then redis.call('EXPIRE', window, 180) end
return {'held', amount, tokens}
"""

SETTLE = """
-- KEYS money, holds, ledger; ARGV identity ('' at closing), call, amount ('' as held), tokens, kind, facts
local m = redis.call('HMGET', KEYS[1], 'identity', 'limit', 'charged', 'held')
if not m[1] then return {'missing'} end
if ARGV[1] ~= m[1] then return {'lost'} end
local hold = redis.call('HGET', KEYS[2], ARGV[2])
if not hold then return {'done'} end
local amount, minute, tokens, about = string.match(hold, '^(%d+)|(%d+)|(%d+)|(.*)$')
amount, tokens = tonumber(amount), tonumber(tokens)
local wanted = ARGV[3] == '' and amount or tonumber(ARGV[3])
-- INVARIANT: charged + held <= limit. What goes beyond the hold is taken from what is free, and no further.
local free = math.max(tonumber(m[2]) - tonumber(m[3]) - tonumber(m[4]), 0)
local taken = math.min(wanted, amount + free)
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'held', -amount)
redis.call('HINCRBY', KEYS[1], 'charged', taken)
local window = KEYS[1] .. ':' .. minute
if ARGV[4] ~= '' and redis.call('EXISTS', window) == 1 then
  redis.call('HINCRBY', window, 'tokens', tonumber(ARGV[4]) - tokens)
end
redis.call('XADD', KEYS[3], '*', 'call', ARGV[2], 'amount', string.format('%.0f', taken),
  'held', string.format('%.0f', amount), 'wanted', string.format('%.0f', wanted), 'kind', ARGV[5],
  'about', about, 'facts', ARGV[6])
return {'settled', taken, amount}
"""
"""Idempotent: the hold's end and the ledger's entry are one step, so a repeat finds no hold and does nothing."""

CLOSE = """
-- KEYS money, holds, boot; ARGV boot, identity, token, seconds to keep
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {'lost'} end
local m = redis.call('HMGET', KEYS[1], 'identity', 'token', 'charged', 'closed', 'closed_at')
local now = tonumber(redis.call('TIME')[1])
if not m[1] or tonumber(m[2]) < tonumber(ARGV[3]) then
  -- Whoever wrote the opening to PostgreSQL may come yet: it finds a closed one.
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'identity', ARGV[2], 'token', ARGV[3], 'limit', 0, 'charged', 0, 'held', 0,
    'closed', 1, 'closed_at', now)
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  return {'never'}
end
if m[1] ~= ARGV[2] or m[2] ~= ARGV[3] then return {'lost'} end
if m[4] ~= '1' then
  redis.call('HSET', KEYS[1], 'closed', 1, 'closed_at', now)
  m[5] = now
end
local calls = redis.call('HKEYS', KEYS[2])
if #calls == 0 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return {'closed', tonumber(m[3]), now - tonumber(m[5]), unpack(calls)}
"""
"""From here on nothing is held any more. `never`: PostgreSQL says that it was opened, but nobody came so far."""
