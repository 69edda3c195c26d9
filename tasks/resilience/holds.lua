-- Put an account, its backfill or the archive on hold, or end the hold.
--
-- KEYS[1]  hold    HASH  reason, note; by: the person who placed it; since (ms); until (ms): when it ends, or when the
--                        next probe is sent; pause (ms): time until the next probe after that, if only a probe ends it;
--                        length (ms): time from when `until` was written. If `until` is further ahead, it was written
--                        before Redis's clock was set back, and the hold is over. Manual holds have no length.
-- KEYS[2]  unused  a key that never exists; see below
--
-- ARGV: 'place_until_probe', reason, note, first pause (ms), longest pause (ms), probe (0|1)
--           place a hold that only a successful probe, or a person, ends; each failed probe doubles the pause
--       'place_for', reason, note, milliseconds
--           place a hold that ends after a time; it never shortens another hold
--       'place_manual', reason, note, until, by, replace (0|1)
--           place a hold that only a person ends -> {1}, or {0} if there is a manual hold and `replace` is 0
--       'enter', probe lease (ms)
--           -> {'free'}, {'probe', 0, reason} if the caller is the probe, or {'held', milliseconds left, reason}
--       'release_probe'    the probe proved nothing: let another be sent at once
--       'end_after_probe'  a probe succeeded: end the hold unless it is manual
--       'end'              -> {1} if there was a hold, else {0}
-- Answer of the others: {milliseconds until the hold may end}

-- A full Redis refuses the first write of a script that may need memory, but not those after another write. This DEL is
-- that other write, because a hold must not fail when Redis is full.
redis.call('DEL', KEYS[2])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local verb, reason, note = ARGV[1], ARGV[2], ARGV[3]

local function place(until_, pause, expires)
  redis.call('HSETNX', KEYS[1], 'since', now)
  redis.call('HSET', KEYS[1], 'reason', reason, 'note', note, 'until', string.format('%.0f', until_))
  if verb ~= 'place_manual' then redis.call('HSET', KEYS[1], 'length', string.format('%.0f', until_ - now)) end
  if pause then redis.call('HSET', KEYS[1], 'pause', pause) end
  if expires then
    redis.call('PEXPIRE', KEYS[1], until_ - now)
  else
    redis.call('PERSIST', KEYS[1])
  end
  return { until_ - now }
end

local old = redis.call('HMGET', KEYS[1], 'until', 'pause', 'reason', 'length')
-- A damaged value counts as missing.
local old_until, old_pause, old_reason = tonumber(old[1] or 0) or 0, tonumber(old[2] or 0) or 0, old[3] or 'unknown'
local CLOCK_STEP = 5 * 1000
if tonumber(old[4] or nil) and old_until - now > tonumber(old[4]) + CLOCK_STEP then old_until = now end

if verb == 'end' then return { redis.call('DEL', KEYS[1]) } end

if verb == 'enter' then
  if not old[1] or (old_until <= now and old_pause == 0) then return { 'free' } end
  if old_until > now then return { 'held', old_until - now, old_reason } end
  redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[2]), 'length', ARGV[2])
  return { 'probe', 0, old_reason }
end

if verb == 'release_probe' then
  if old_pause > 0 then redis.call('HSET', KEYS[1], 'until', now) end
  return { 0 }
end

if verb == 'place_manual' then
  if old[1] and old_reason == reason and ARGV[6] == '0' then return { 0 } end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'by', ARGV[5])
  place(tonumber(ARGV[4]), nil, false)
  return { 1 }
end

if old_reason == 'by_hand' then return { old_until - now } end

if verb == 'end_after_probe' then return { redis.call('DEL', KEYS[1]) } end

if verb == 'place_until_probe' then
  -- Requests that were in flight when the hold was placed change nothing; only the probe does.
  if old_pause > 0 and ARGV[6] == '0' then return { math.max(0, old_until - now) } end
  local pause = old_pause > 0 and old_pause or tonumber(ARGV[4])
  return place(now + pause, math.min(pause * 2, tonumber(ARGV[5])), false)
end

if old_pause > 0 or old_until > now + tonumber(ARGV[4]) then return { math.max(0, old_until - now) } end
return place(now + tonumber(ARGV[4]), nil, true)
