-- May this account send, and when is its turn? Generic cell rate algorithm with reservation: who is
-- answered has the turn and only has to wait for it; nobody asks again in a loop.
--
-- Time is Redis's own, in microseconds, so that the clocks of the workers do not matter.
--
-- KEYS[1]  hold    HASH    reason, until (ms), pause (ms): the account stands still (tasks/hold.lua writes it)
-- KEYS[2]  quota   HASH    since (ms), used: requests of the day that is under way
-- KEYS[3]  turns   STRING  theoretical arrival time of the next request, in microseconds
--
-- Two verbs, 'turn' and 'late'. 'late': whoever woke up too late for the turn sends now all the same, and those
-- who have not been given theirs yet come so much later. Else the late one and the punctual ones behind it would
-- arrive closer together than the rate allows.
--
-- ARGV: verb, interval between two requests (microseconds), burst, horizon (microseconds; a turn further away is
--       not reserved), quota (requests a day, 0 for none), probe lease (ms; 0 where
--       this turn is not the last one before the request, so that it cannot be the probe)
-- Answer to 'turn':
--         {'turn', microseconds}        the turn is ours in so long
--         {'probe', microseconds}       the same, and we are the one who finds out whether a hold may end
--         {'later', microseconds}       no turn was reserved; ask again then
--         {'held', milliseconds, reason}

local DAY = 24 * 60 * 60 * 1000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)
local verb, interval, burst, horizon = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local quota, probe_lease = tonumber(ARGV[5]), tonumber(ARGV[6])
local kind = 'turn'

local function next_at(arrival)
  redis.call('SET', KEYS[3], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 60000)
end

local arrival = tonumber(redis.call('GET', KEYS[3]) or 0)
if verb == 'late' then
  next_at(math.max(arrival, now + interval))
  return { 'turn', 0 }
end

local hold = redis.call('HMGET', KEYS[1], 'until', 'reason')
if hold[1] then
  local left = tonumber(hold[1]) - now_ms
  if left > 0 then return { 'held', left, hold[2] } end
  if probe_lease > 0 then kind = 'probe' end
end

if quota > 0 then
  local day = redis.call('HMGET', KEYS[2], 'since', 'used')
  local since, used = tonumber(day[1] or 0), tonumber(day[2] or 0)
  if now_ms - since >= DAY then
    since, used = now_ms, 0
    redis.call('HSET', KEYS[2], 'since', since, 'used', 0)
  end
  if used >= quota then
    local left = since + DAY - now_ms
    redis.call('HSET', KEYS[1], 'until', since + DAY)
    -- A hold that waits for its probe stays one; else this is a hold of its own, and ends by itself.
    if not hold[1] then
      redis.call('HSET', KEYS[1], 'reason', 'quota', 'since', now_ms)
      redis.call('PEXPIRE', KEYS[1], left)
    end
    return { 'held', left, 'quota' }
  end
end

local wait = math.max(0, arrival - (burst - 1) * interval - now)
if wait > horizon then return { 'later', wait - horizon } end

next_at(math.max(arrival, now) + interval)
if quota > 0 then redis.call('HINCRBY', KEYS[2], 'used', 1) end
if kind == 'probe' then
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now_ms + math.ceil(wait / 1000) + probe_lease))
end
return { kind, string.format('%.0f', wait) }
