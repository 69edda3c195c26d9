-- Let an account stand still, or let it go on.
--
-- KEYS[1]  hold  HASH  reason, since (ms), until (ms), pause (ms, the next one)
--
-- ARGV: 'refused', reason, first pause, longest pause, probe (0|1)
--           a hold that only a successful probe, or a person, ends; the pause doubles with each failed probe
--       'timed', reason, milliseconds
--           a hold that ends by itself; it never shortens another
--       'lift'
-- Answer: milliseconds until the hold may end; for 'lift' 1 where there was one

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local verb, reason = ARGV[1], ARGV[2]

local function place(until_, pause)
  redis.call('HSETNX', KEYS[1], 'since', now)
  redis.call('HSET', KEYS[1], 'reason', reason, 'until', until_)
  if pause then
    redis.call('HSET', KEYS[1], 'pause', pause)
    redis.call('PERSIST', KEYS[1])
  else
    redis.call('PEXPIRE', KEYS[1], until_ - now)
  end
  return until_ - now
end

local old = redis.call('HMGET', KEYS[1], 'until', 'pause')
local old_until, old_pause = tonumber(old[1] or 0), tonumber(old[2] or 0)

if verb == 'lift' then return redis.call('DEL', KEYS[1]) end

if verb == 'refused' then
  -- Requests that were under way when the hold was placed say nothing new; only the probe does.
  if old_pause > 0 and ARGV[5] == '0' then return math.max(0, old_until - now) end
  local pause = old_pause > 0 and old_pause or tonumber(ARGV[3])
  return place(now + pause, math.min(pause * 2, tonumber(ARGV[4])))
end

if old_pause > 0 then return math.max(0, old_until - now) end
return place(math.max(old_until, now + tonumber(ARGV[3])), nil)
