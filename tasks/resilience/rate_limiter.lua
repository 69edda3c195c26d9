-- May this account send, when is its turn, and how fast is it just now?
--
-- Generic cell rate algorithm with reservation: who is answered has the turn and only has to wait for it; nobody
-- asks again in a loop. Time is Redis's own, so that the clocks of the workers do not matter.
--
-- KEYS[1]  hold      HASH    reason, note, since, until (ms), pause (ms): the account stands still (see hold.lua)
-- KEYS[2]  own hold  HASH    the same for what this request belongs to: the account's backfill, or again the account
-- KEYS[3]  quota     HASH    since (ms), used: requests of the day that is under way; learnt: RiskOS said when it ends
-- KEYS[4]  turns     STRING  theoretical arrival time of the next request, in microseconds
-- KEYS[5]  pace      HASH    asked: rate that a person set; granted, granted_until (ms): rate that RiskOS's headers
--                            speak of; slowed, slowed_at (ms): rate after the last slowing down; limited_at (ms), row,
--                            lately: the last 429, how many in a row without an answer, how many of late; minute,
--                            sent, sent_before: turns given in that minute and in the one before
-- KEYS[6]  never     a key that is never there (see hold.lua)
-- KEYS[7]  all turns STRING  the account's turns, where the fourth are those of its backfill; else the same
-- KEYS[8]  shift     STRING  microseconds by which the account's turns have come later than one right after the other:
--                            nobody asked, or somebody was late
--
-- ARGV: verb, rate (requests a second, as in the settings), then the verb's own
-- Answer of 'turn':
--         {'turn', microseconds, at, shift, spared}    the turn is ours in so long; at and shift are to be told to 'late' as
--                                       they are, by whoever is later than the microseconds spared
--         {'probe', microseconds, at, shift, spared}   the same, and we are the one who finds out whether a hold may end
--         {'later', microseconds}       no turn was reserved; ask again then
--         {'held', milliseconds, reason}
-- and of 'both' also
--         {'narrow', microseconds}      the backfill's turn is ours in so long; then ask for the account's

redis.call('DEL', KEYS[6])

local DAY = 24 * 60 * 60 * 1000
-- A rate that was slowed down comes back by a hundredth of the full one each second, and never falls below a
-- twentieth of it.
local RECOVERY, FACTOR, LEAST = 0.01 / 1000, 0.8, 0.05
local SUSTAINED, LATELY = 3, 30 * 1000
-- A wait that long is no matter of requests a second: the day's quota is spent.
local LONG = 120 * 1000
local IN_A_ROW = 6
-- Microseconds that a backfill need not wait for its narrow bucket: asking again takes as long.
local SOON = 5000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)
local verb, rate = ARGV[1], tonumber(ARGV[2])
local turns = KEYS[4]

-- The rate that was asked for, and the one that is kept just now; both in requests a second.
local function paces()
  local asked, granted, granted_until, slowed, slowed_at = unpack(
    redis.call('HMGET', KEYS[5], 'asked', 'granted', 'granted_until', 'slowed', 'slowed_at'))
  local most = tonumber(asked or rate)
  local full = most
  if granted and tonumber(granted_until) > now_ms then full = math.min(full, tonumber(granted)) end
  if not slowed then return most, full end
  return most, math.min(full, tonumber(slowed) + full * RECOVERY * (now_ms - tonumber(slowed_at)))
end

-- The day of the quota that is under way: since when, and how much of it is used.
local function day()
  local since, used, learnt = unpack(redis.call('HMGET', KEYS[3], 'since', 'used', 'learnt'))
  since, used = tonumber(since or 0), tonumber(used or 0)
  if now_ms - since >= DAY then
    since, used = learnt and since + DAY * math.floor((now_ms - since) / DAY) or now_ms, 0
    redis.call('HSET', KEYS[3], 'since', string.format('%.0f', since), 'used', 0)
  end
  return since, used
end

-- Turns, or their shift, are kept until a minute after there is nothing to wait for.
local function keep(key, value, arrival)
  redis.call('SET', key, string.format('%.0f', value), 'PX', math.max(0, math.ceil((arrival - now) / 1000)) + 60000)
end

local function shift()
  return tonumber(redis.call('GET', KEYS[8]) or 0)
end

local function interval(share, spare)
  local _, kept = paces()
  return 1000000 / (kept * share) * (1 + spare)
end

-- The microseconds by which one may be late and nobody has to come later: half of what a second has to spare. The other half
-- is for what happens to a request on its way.
local function spared(spare)
  local _, kept = paces()
  return math.max(1, math.floor(kept)) / kept * 1000000 * spare / 2
end

local function count_turn()
  local minute = math.floor(now_ms / 60000)
  local of, sent = unpack(redis.call('HMGET', KEYS[5], 'minute', 'sent'))
  if tonumber(of or 0) ~= minute then
    redis.call('HSET', KEYS[5], 'minute', minute, 'sent', 0, 'sent_before', tonumber(of or 0) == minute - 1 and sent or 0)
  end
  redis.call('HINCRBY', KEYS[5], 'sent', 1)
end

-- Turns a second, over the last minute: what is left of the minute before counts for its part.
local function reached()
  local of, sent, before = unpack(redis.call('HMGET', KEYS[5], 'minute', 'sent', 'sent_before'))
  local since = now_ms / 60000 - tonumber(of or 0)
  if since < 1 then return (sent + before * (1 - since)) / 60 end
  return since < 2 and sent * (2 - since) / 60 or 0
end

local verbs = {}

-- share, spare (part of a turn that is added to each), burst, horizon (microseconds; a turn further away is not
-- reserved), quota (requests a day, 0 for none), quota of our own (how much of it this request may find used),
-- probe lease (ms; 0 where this turn is not the last one before the request, so that it cannot be the probe)
function verbs.turn(share, spare, burst, horizon, quota, own_quota, probe_lease)
  local kind = 'turn'
  for i = 1, 2 do
    local until_, reason, pause = unpack(redis.call('HMGET', KEYS[i], 'until', 'reason', 'pause'))
    if until_ then
      local left = tonumber(until_) - now_ms
      if left > 0 then return { 'held', left, reason } end
      -- What ends by itself has ended, also where Redis has not removed it yet.
      if probe_lease > 0 and i == 1 and pause then kind = 'probe' end
    end
  end

  if quota > 0 then
    local since, used = day()
    if used >= own_quota then
      local held, left = redis.call('EXISTS', KEYS[2]) == 1, since + DAY - now_ms
      redis.call('HSET', KEYS[2], 'until', string.format('%.0f', since + DAY))
      -- A hold that waits for its probe stays one; else this is a hold of its own, and ends by itself.
      if not held then
        redis.call('HSET', KEYS[2], 'reason', 'quota', 'note', own_quota .. ' of ' .. quota .. ' requests are spent',
          'since', now_ms)
        redis.call('PEXPIRE', KEYS[2], left)
      end
      return { 'held', left, 'quota' }
    end
  end

  local each = interval(share, spare)
  local arrival = tonumber(redis.call('GET', turns) or 0)
  local wait = math.max(0, arrival - (burst - 1) * each - now)
  if wait > horizon then return { 'later', string.format('%.0f', wait - horizon) } end

  local next = math.max(arrival, now) + each
  keep(turns, next, next)
  local shifted = shift()
  -- A backfill's turn in its narrow bucket is no request yet.
  if probe_lease > 0 then
    count_turn()
    if arrival > 0 and now > arrival then shifted = shifted + now - arrival end
    keep(KEYS[8], shifted, next)
  end
  if quota > 0 then redis.call('HINCRBY', KEYS[3], 'used', 1) end
  if kind == 'probe' then
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now_ms + math.ceil(wait / 1000) + probe_lease))
  end
  return {
    kind,
    string.format('%.0f', wait),
    string.format('%.0f', now + wait),
    string.format('%.0f', shifted),
    string.format('%.0f', spared(spare)),
  }
end

-- as turn: a backfill's turn in its narrow bucket, and with it the one of the account where the first is now, or nearly so.
-- Where it is not, the account's is not reserved ahead of its time: what is live would wait behind it.
function verbs.both(share, spare, burst, horizon, quota, own_quota, probe_lease)
  local narrow = verbs.turn(share, spare, burst, horizon, 0, 0, 0)
  if narrow[1] ~= 'turn' then return narrow end
  if tonumber(narrow[2]) > SOON then return { 'narrow', narrow[2] } end
  turns = KEYS[7]
  local last = verbs.turn(1, spare, burst, horizon, quota, own_quota, probe_lease)
  return (last[1] == 'turn' or last[1] == 'probe') and last or { 'narrow', 0 }
end

-- spare, burst, quota, at and shift of a turn: whoever woke up too late for it sends now all the same. The rate allows so
-- many in a second, and that many turns further on is the one that would now come too early. So turns that have not been
-- given yet come later by as much as we are late, but for what is spared, and only once where several are late in the same
-- second. Where that turn has been given already, as with a low rate and many processes, nothing
-- can be moved any more: ours is lost.
-- -> {'sent'}, or {'again'}: ask for another turn
function verbs.late(spare, burst, quota, at, shift_then)
  local _, kept = paces()
  local allowed, each = math.max(1, math.floor(kept)), interval(1, spare)
  local arrival = tonumber(redis.call('GET', KEYS[7]) or 0)
  local late = now - at - spared(spare)
  if late <= 0 then return { 'sent' } end
  local shifted = shift()
  local further = (arrival - at - (shifted - shift_then)) / each
  if further > allowed + burst - 0.5 then
    redis.call('HINCRBY', KEYS[5], 'sent', -1)
    -- A day that began since then was not charged for it.
    if quota > 0 and day() * 1000 <= at then redis.call('HINCRBY', KEYS[3], 'used', -1) end
    return { 'again' }
  end
  local more = math.min(late, shift_then + late - shifted)
  if more > 0 then
    keep(KEYS[8], shifted + more, arrival + more)
    keep(KEYS[7], arrival + more, arrival + more)
    -- What a backfill waits for first does not run ahead of that.
    local narrow = KEYS[4] ~= KEYS[7] and tonumber(redis.call('GET', KEYS[4]) or 0) or 0
    if narrow > 0 then keep(KEYS[4], narrow + more, narrow + more) end
  end
  return { 'sent' }
end

-- wait (ms that RiskOS asked for, -1 where it did not say), limit (requests a second that it grants, -1 for unknown),
-- answers since we last told -> {reason of the hold to place, milliseconds, 0 where only a probe can tell its end}
function verbs.limited(wait, limit, answers)
  local limited_at, row, lately = unpack(redis.call('HMGET', KEYS[5], 'limited_at', 'row', 'lately'))
  limited_at, row, lately = tonumber(limited_at or 0), tonumber(row or 0), tonumber(lately or 0)
  if answers > 0 then
    row = 0
    redis.call('HSET', KEYS[5], 'row', row)
  end
  if limit == 0 then return { 'not_activated', 0 } end
  if wait >= LONG then
    verbs.spent(wait)
    return { 'quota', wait }
  end
  -- Requests that were under way together are refused together: that is one 429.
  if now_ms - limited_at < 1000 then return { '429', math.max(wait, 1000) } end
  row, lately = row + 1, now_ms - limited_at > LATELY and 1 or lately + 1
  redis.call('HSET', KEYS[5], 'limited_at', now_ms, 'row', row, 'lately', lately)
  if lately >= SUSTAINED then
    local asked, kept = paces()
    redis.call('HSET', KEYS[5], 'slowed', math.max(asked * LEAST, kept * FACTOR), 'slowed_at', now_ms)
  end
  if row >= IN_A_ROW then return { '429', 0 } end
  return { '429', wait >= 0 and math.max(wait, 1) or 1000 * 2 ^ (row - 1) }
end

-- wait (ms): the quota is spent, and its next day begins then
function verbs.spent(wait)
  redis.call('HSET', KEYS[3], 'since', string.format('%.0f', now_ms + wait - DAY), 'learnt', 1)
  return { 'ok' }
end

-- There were answers: the next 429 is not one of a row.
function verbs.answered()
  if redis.call('HEXISTS', KEYS[5], 'row') == 1 then redis.call('HSET', KEYS[5], 'row', 0) end
  return { 'ok' }
end

-- limit (requests a second), for how long we believe it (ms)
function verbs.granted(limit, believed)
  redis.call('HSET', KEYS[5], 'granted', limit, 'granted_until', string.format('%.0f', now_ms + believed))
  return { 'ok' }
end

-- The quota has just come back: its day begins now.
function verbs.new_day()
  redis.call('HSET', KEYS[3], 'since', now_ms, 'used', 1, 'learnt', 1)
  return { 'ok' }
end

-- rate that a person wants (0 for that of the settings); what was slowed down before is forgotten
function verbs.ask(asked)
  redis.call('HDEL', KEYS[5], 'asked', 'slowed', 'slowed_at')
  if asked > 0 then redis.call('HSET', KEYS[5], 'asked', asked) end
  return { 'ok' }
end

-- -> {rate asked for, rate kept just now, 1 where a person asked for it, requests of the day so far, rate reached}
function verbs.see()
  local asked, kept = paces()
  local since, used = unpack(redis.call('HMGET', KEYS[3], 'since', 'used'))
  local today = since and now_ms - tonumber(since) < DAY and used or '0'
  return { tostring(asked), tostring(kept), redis.call('HEXISTS', KEYS[5], 'asked'), today, tostring(reached()) }
end

local own = {}
for i = 3, #ARGV do own[i - 2] = tonumber(ARGV[i]) end
return verbs[verb](unpack(own))
