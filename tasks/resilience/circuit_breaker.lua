-- Do so many evaluations fail that it is none of their own doing?
--
-- KEYS[1]  window     LIST    how the last evaluations went, the newest last: '+' answered, else the ID of one that failed
-- KEYS[2]  never      a key that is never there (see hold.lua)
-- KEYS[3]  last_well  STRING  when an evaluation went well for the last time, since the first in the window that failed
--
-- ARGV: how many went well since we last told, ID of one that failed or '', size of the window, share of failures in it
-- that is an outage
-- Answer: the IDs of those that failed, if it is an outage; else none. Those that failed a little before the window are
-- named as well: what went well in another process may be told in between.

redis.call('DEL', KEYS[2])

local WINDOW, SHARE, ENOUGH, REMEMBERED = tonumber(ARGV[3]), tonumber(ARGV[4]), 10, 60 * 60
local KEPT = math.max(100, 2 * WINDOW)
-- Even in a large window: nothing but failures for longer than an attempt takes.
local IN_A_ROW, SILENCE = 20, 60

local well, failed = tonumber(ARGV[1]), ARGV[2]
-- Who only tells of success has nothing to say where nothing failed.
if failed == '' and redis.call('EXISTS', KEYS[1]) == 0 then return {} end

local now = tonumber(redis.call('TIME')[1])
if well > 0 then redis.call('SET', KEYS[3], now, 'EX', REMEMBERED) end
for _ = 1, math.min(well, WINDOW) do redis.call('RPUSH', KEYS[1], '+') end
if failed ~= '' then redis.call('RPUSH', KEYS[1], failed) end
redis.call('LTRIM', KEYS[1], -KEPT, -1)
redis.call('EXPIRE', KEYS[1], REMEMBERED)

local kept, named, failures, in_a_row = redis.call('LRANGE', KEYS[1], 0, -1), {}, 0, 0
for i, each in ipairs(kept) do
  in_a_row = each ~= '+' and in_a_row + 1 or 0
  if each ~= '+' then
    named[#named + 1] = each
    if i > #kept - WINDOW then failures = failures + 1 end
  end
end
local most = failures >= ENOUGH and failures > SHARE * math.min(#kept, WINDOW)
local silent = in_a_row >= IN_A_ROW and now - tonumber(redis.call('GET', KEYS[3]) or 0) >= SILENCE
return (most or silent) and named or {}
