-- Let an account, its backfill or the archive stand still, or let it go on.
--
-- KEYS[1]  hold   HASH  reason, note, since (ms), until (ms), pause (ms, the next one; where only a probe ends it)
-- KEYS[2]  never  a key that is never there; see below
--
-- ARGV: 'place_until_probe', reason, note, first pause, longest pause, probe (0|1)
--           a hold that only a successful probe, or a person, ends; the pause doubles with each failed probe
--       'place_for', reason, note, milliseconds
--           a hold that ends by itself; it never shortens another
--       'place_manual', reason, note, until
--           a hold that only a person ends; nothing replaces it
--       'enter', probe lease
--           may we? -> {'free'}, {'probe', 0, reason} where we find out whether it may end, or {'held', left, reason}
--       'release_probe'   the probe proved nothing: let another be sent at once
--       'end_after_probe'   a probe succeeded: end the hold unless a person placed it
--       'end'   -> {1 where there was one}
-- Answer of the others: {milliseconds until the hold may end}

-- A full Redis refuses a script's first write that may need memory, but none after another write: what keeps the work
-- going must not be refused.
redis.call('DEL', KEYS[2])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local verb, reason, note = ARGV[1], ARGV[2], ARGV[3]

local function place(until_, pause, expires)
  redis.call('HSETNX', KEYS[1], 'since', now)
  redis.call('HSET', KEYS[1], 'reason', reason, 'note', note, 'until', string.format('%.0f', until_))
  if pause then redis.call('HSET', KEYS[1], 'pause', pause) end
  if expires then
    redis.call('PEXPIRE', KEYS[1], until_ - now)
  else
    redis.call('PERSIST', KEYS[1])
  end
  return { until_ - now }
end

local old = redis.call('HMGET', KEYS[1], 'until', 'pause', 'reason')
local old_until, old_pause, old_reason = tonumber(old[1] or 0), tonumber(old[2] or 0), old[3]

if verb == 'end' then return { redis.call('DEL', KEYS[1]) } end

if verb == 'enter' then
  if not old[1] or (old_until <= now and old_pause == 0) then return { 'free' } end
  if old_until > now then return { 'held', old_until - now, old_reason } end
  redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[2]))
  return { 'probe', 0, old_reason }
end

if verb == 'release_probe' then
  if old_pause > 0 then redis.call('HSET', KEYS[1], 'until', now) end
  return { 0 }
end

if verb == 'place_manual' then
  redis.call('DEL', KEYS[1])
  return place(tonumber(ARGV[4]), nil, false)
end

if old_reason == 'by_hand' then return { old_until - now } end

if verb == 'end_after_probe' then return { redis.call('DEL', KEYS[1]) } end

if verb == 'place_until_probe' then
  -- Requests that were under way when the hold was placed say nothing new; only the probe does.
  if old_pause > 0 and ARGV[6] == '0' then return { math.max(0, old_until - now) } end
  local pause = old_pause > 0 and old_pause or tonumber(ARGV[4])
  return place(now + pause, math.min(pause * 2, tonumber(ARGV[5])), false)
end

if old_pause > 0 or old_until > now + tonumber(ARGV[4]) then return { math.max(0, old_until - now) } end
return place(now + tonumber(ARGV[4]), nil, true)
